"""The sample bank in SQL: draws that outlive the process and serve every study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from sqlalchemy import Engine, select

from env.backends._base import Draw, ModelIdentity
from env.bank._base import PromptKey
from planner.archive.connection import explained
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import DrawRow, table_of

_KEYS_A_STATEMENT = 1000


class SqlSampleBank:
    """Keeps draws in an archive's database; see `env.bank.SampleBank` for the contract.

    Core statements rather than rows as objects: a batch reads and writes thousands of draws.
    """

    def __init__(self, engine: Engine) -> None:
        """Bind to a migrated engine made by `open_engine`."""
        self._engine = engine
        self._sessions = Sessions(engine)

    def held(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """See `SampleBank.held`.

        Raises:
            ArchiveError: the database failed.
        """
        wanted = list(dict.fromkeys(keys))
        draws = table_of(DrawRow).c
        columns = [draws[name] for name in ("prompt_key", "index", "text", "finish_reason", "prompt_tokens")]
        columns += [draws[name] for name in ("output_tokens", "logprob", "score", "origin")]
        found: dict[PromptKey, tuple[Draw, ...]] = {}
        with explained(self._engine), self._engine.connect() as connection:
            for start in range(0, len(wanted), _KEYS_A_STATEMENT):
                chunk = wanted[start : start + _KEYS_A_STATEMENT]
                statement = select(*columns).where(draws.prompt_key.in_(chunk))
                rows = connection.execute(statement.order_by(draws.prompt_key, draws["index"])).all()
                for key, group in groupby(rows, key=lambda row: row[0]):
                    found[key] = tuple(Draw(*row[1:]) for row in group)
        return found

    def settle(self, model: ModelIdentity, draws: Mapping[PromptKey, Sequence[Draw]]) -> int:
        """See `SampleBank.settle`.

        Raises:
            ArchiveError: the database failed; none of the draws was stored.
        """
        now = utc_now()
        rows = [
            {
                "prompt_key": key,
                "index": draw.index,
                "model_name": model.name,
                "model_revision": model.revision,
                "text": draw.text,
                "finish_reason": draw.finish_reason,
                "prompt_tokens": draw.prompt_tokens,
                "output_tokens": draw.output_tokens,
                "logprob": draw.logprob,
                "score": draw.score,
                "origin": draw.origin,
                "created_at": now,
            }
            for key in sorted(draws)
            for draw in sorted(draws[key], key=lambda draw: draw.index)
        ]
        if not rows:
            return 0
        with self._sessions.write() as session:
            return insert_missing(session.connection(), DrawRow, rows)
