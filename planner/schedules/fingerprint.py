"""What data and candidates are at a moment, as digests: equal as long as nothing changed that a plan rests on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from env.spec import StudySpec
from env.spec.checkpoints import resolve_checkpoint
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, OpenAIModel, ReplayModel, TorchModel
from env.spec.study import FileData, InlineData, LedgerData, PoolData
from env.tasks.data import confined
from planner.archive.schedule_records import Watched
from planner.space import SearchSpace

_BLOCK = 1 << 20


class Fingerprints:
    """Takes fingerprints of specs; a file is read again only when its size or time of change are others."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, str]] = {}

    def of(self, spec: StudySpec) -> dict[str, Any]:
        """The fingerprint of a spec's data and candidates.

        Returns:
            ``data``: a digest; ``models``: revision by candidate; ``costs``: a digest of what the cost model says of
            the candidates, so that a catalogue or a price list that changed shows. Plain JSON.

        Raises:
            ApportionError: data or a candidate are not there, or cannot be read.
        """
        models = spec.pipeline.models
        return {
            "data": self._data(spec),
            "models": {name: self._revision(model, models) for name, model in sorted(models.items())},
            "costs": _costs(spec),
        }

    def _data(self, spec: StudySpec) -> str:
        data = spec.data
        stated = data.model_dump(mode="json")
        match data:
            case FileData():
                return _digest([stated, self._file(confined(data.path))])
            case PoolData():
                return _digest([stated, self._file(confined(data.gold))])
            case InlineData() | LedgerData():
                return _digest([stated])
            case _:  # pragma: no cover
                assert_never(data)

    def _revision(self, model: ModelSpec, models: Mapping[str, ModelSpec]) -> str:
        match model:
            case TorchModel():
                # Imported here, as the engine brings torch with it.
                from env.engine.config import checkpoint_revision

                folder = resolve_checkpoint(model.checkpoint)
                return self._once(str(folder), _stamps(sorted(folder.iterdir())), lambda: checkpoint_revision(folder))
            case OpenAIModel():
                # The weights behind a URL are what the spec states of them; nobody can look.
                return f"{model.model}@{model.revision}"
            case ReplayModel():
                return self._file(confined(model.path))
            case FleetModel():
                # Imported here: only studies on a fleet read its file.
                from env.fleet.backend import FleetBackend
                from env.fleet.load import configured_fleet

                fleet = configured_fleet()
                served = fleet.checkpoint(model.model)
                stamp = [fleet.spec.model_dump_json(), _stamps(sorted(served.iterdir())) if served else None]
                name = f"fleet:{model.model}@{model.revision}"
                return self._once(name, stamp, lambda: FleetBackend(fleet, model).identity.revision)
            case JudgeModel():
                judging = self._revision(models[model.model], models)
                return _digest([judging, model.model_dump(mode="json")])
            case _:  # pragma: no cover
                assert_never(model)

    def _file(self, path: Path) -> str:
        return self._once(str(path), _stamps([path]), lambda: _file_digest(path))

    def _once(self, name: str, stamp: object, digest: Callable[[], str]) -> str:
        held = self._known.get(name)
        if held is None or held[0] != stamp:
            held = self._known[name] = (stamp, digest())
        return held[1]


def changes(before: Mapping[str, Any], now: Mapping[str, Any], watched: Sequence[Watched]) -> list[str]:
    """What differs between two fingerprints, in words; empty where nothing does."""
    words: list[str] = []
    if "data" in watched and before.get("data") != now.get("data"):
        words.append("the data changed")
    if "models" in watched:
        old, new = before.get("models", {}), now.get("models", {})
        words += [f"candidate {name} is new" for name in new if name not in old]
        words += [f"candidate {name} is gone" for name in old if name not in new]
        words += [f"candidate {name} has another revision" for name in new if name in old and old[name] != new[name]]
        if not words and before.get("costs") != now.get("costs"):
            words.append("what the candidates cost changed")
    return words


def _costs(spec: StudySpec) -> str:
    """Of the cheapest setting of each candidate in each stage, to nine digits: rounding is no change of a catalogue."""
    space = SearchSpace(spec)
    prices: dict[str, float] = {}
    for stage, settings in space.settings.items():
        for setting in settings:
            place = f"{stage}/{setting.model}"
            prices[place] = min(space.price(stage, setting), prices.get(place, math.inf))
    return _digest([space.unit, {place: f"{price:.9g}" for place, price in prices.items()}])


def _stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    found = [(path.name, path.stat()) for path in paths if path.is_file()]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in found]


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
