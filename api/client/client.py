"""The client: one method an operation."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from api.client.connection import Connection
from api.client.streams import Event, follow
from api.schemas import (
    CheckPublic,
    DatasetPublic,
    EstimatePublic,
    ExampleInspectedPublic,
    ExamplePublic,
    FleetPublic,
    GuidelinePublic,
    LedgerPublic,
    ModelPublic,
    Page,
    PipelineDetail,
    PipelinePublic,
    PlanDetail,
    ProposalPublic,
    StudyDetail,
    StudyPublic,
    TrialDetail,
    TrialPublic,
)
from env.spec import StudySpec
from planner.archive import StudyStatus
from planner.plans import PlanDocument

DEFAULT_URL = "http://127.0.0.1:8321"
PAGE = 200

Item = TypeVar("Item", bound=BaseModel)
Spec = StudySpec | Mapping[str, Any]


class Client:
    """Asks one service. Lists are iterators that fetch page after page; close it, or use it as a context.

    Every method may raise `ApiError` (the service refused, with its problem) or `Unreachable`.

    Args of the constructor:
        url: of the service, without a path.
        token: access token; else APPORTION_TOKEN, else none.
        timeout_s: of one request, in seconds.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str | None = None, timeout_s: float = 30.0) -> None:
        self._connection = Connection(url, token, timeout_s)

    # Studies ---------------------------------------------------------------------------------------------------------

    def submit(self, spec: Spec, idempotency_key: str | None = None) -> StudyPublic:
        """Queue a study; safe to send again under the same key, which is a new one by default."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return StudyPublic.model_validate(self._post("/studies", _plain(spec), headers, repeatable=True))

    def studies(
        self,
        status: Sequence[StudyStatus] = (),
        name: str = "",
        q: str = "",
        schedule: str | None = None,
        proposer: str | None = None,
        pipeline: str | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[StudyPublic]:
        """Studies, newest first; every argument narrows the choice."""
        query = {
            "status": list(status),
            "name": name,
            "q": q,
            "schedule": schedule,
            "proposer": proposer,
            "pipeline": pipeline,
            "created_from": created_from.isoformat() if created_from else None,
            "created_before": created_before.isoformat() if created_before else None,
        }
        return self._items("/studies", StudyPublic, query)

    def study(self, study_id: str) -> StudyDetail:
        """One study by id, the start of it, or its name."""
        return self._one(f"/studies/{_part(study_id)}", StudyDetail)

    def clone(
        self, study_id: str, overrides: Mapping[str, Any] | None = None, idempotency_key: str | None = None
    ) -> StudyPublic:
        """Queue a copy of a study with parts of its spec changed."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = {"overrides": dict(overrides or {})}
        path = f"/studies/{_part(study_id)}/clone"
        return StudyPublic.model_validate(self._post(path, body, headers, repeatable=True))

    def cancel(self, study_id: str) -> StudyPublic:
        """Ask a study to stop."""
        return self._act(study_id, "cancel")

    def pause(self, study_id: str) -> StudyPublic:
        """Ask a study to pause."""
        return self._act(study_id, "pause")

    def resume(self, study_id: str) -> StudyPublic:
        """Let a study go on."""
        return self._act(study_id, "resume")

    def delete(self, study_id: str) -> None:
        """Delete a study that has ended, by its whole id."""
        self._connection.send("DELETE", f"/studies/{_part(study_id)}")

    def notes(self, study_id: str) -> tuple[str, str]:
        """(notes, their ETag)."""
        answer = self._connection.send("GET", f"/studies/{_part(study_id)}/notes")
        return str(answer.json()["notes"]), answer.headers["etag"]

    def set_notes(self, study_id: str, notes: str, etag: str) -> str:
        """Replace the notes that were read under an ETag (``*``: whatever is there); the new ETag."""
        answer = self._connection.send(
            "PUT", f"/studies/{_part(study_id)}/notes", json={"notes": notes}, headers={"If-Match": etag}
        )
        return str(answer.headers["etag"])

    def events(self, study_id: str, after: int = 0) -> Iterator[Event]:
        """What happens in a study until its `end`; lost connections are taken up again."""
        return follow(self._connection, f"/studies/{_part(study_id)}/events", after)

    def all_events(self, after: int | None = None) -> Iterator[Event]:
        """What happens in all studies, without an end; an event may come twice after a lost connection."""
        return follow(self._connection, "/events", after)

    def wait(self, study_id: str) -> StudyDetail:
        """The study once it has ended."""
        for _ in self.events(study_id):
            pass
        return self.study(study_id)

    # What a study leaves ---------------------------------------------------------------------------------------------

    def trials(self, study_id: str, split: Literal["search", "test"] | None = None) -> Iterator[TrialPublic]:
        """Trials by number."""
        return self._items(f"/studies/{_part(study_id)}/trials", TrialPublic, {"split": split})

    def trial(self, study_id: str, trial_no: int) -> TrialDetail:
        """One trial."""
        return self._one(f"/studies/{_part(study_id)}/trials/{trial_no}", TrialDetail)

    def examples(self, study_id: str, trial_no: int, outcome: str | None = None) -> Iterator[ExamplePublic]:
        """A trial's evidence."""
        path = f"/studies/{_part(study_id)}/trials/{trial_no}/examples"
        return self._items(path, ExamplePublic, {"outcome": outcome})

    def example(self, study_id: str, trial_no: int, example_id: str) -> ExampleInspectedPublic:
        """Every draw behind a trial on one example."""
        path = f"/studies/{_part(study_id)}/trials/{trial_no}/examples/{_part(example_id)}"
        return self._one(path, ExampleInspectedPublic)

    def proposals(self, study_id: str, round: int | None = None) -> Iterator[ProposalPublic]:
        """Everything that was suggested."""
        return self._items(f"/studies/{_part(study_id)}/proposals", ProposalPublic, {"round": round})

    def guidelines(self, study_id: str, round: int | None = None) -> Iterator[GuidelinePublic]:
        """What the rounds taught."""
        return self._items(f"/studies/{_part(study_id)}/guidelines", GuidelinePublic, {"round": round})

    def ledgers(self, study_id: str) -> list[LedgerPublic]:
        """Where each ledger stands."""
        answer = self._connection.send("GET", f"/studies/{_part(study_id)}/ledgers")
        return [LedgerPublic.model_validate(line) for line in answer.json()]

    def plan(self, study_id: str, kind: Literal["chosen", "best"] = "chosen") -> PlanDocument:
        """A study's plan."""
        return self._one(f"/studies/{_part(study_id)}/plan", PlanDocument, {"kind": kind, "format": "json"})

    def report(self, study_id: str, format: Literal["json", "md", "html"] = "md") -> str:
        """A study's report."""
        return self._connection.send("GET", f"/studies/{_part(study_id)}/report", params={"format": format}).text

    def report_figure(self, study_id: str, figure: str) -> str:
        """One figure of a report, as SVG."""
        return self._connection.send("GET", f"/studies/{_part(study_id)}/report/{_part(figure)}.svg").text

    def plan_named(self, name: str) -> PlanDocument:
        """A plan by a promoted name, or by its study's id, start of it or name; ``:best`` behind it for the best."""
        return self._one(f"/plans/{_part(name)}", PlanDetail).document

    # Specs and their parts -------------------------------------------------------------------------------------------

    def check(self, spec: Spec) -> CheckPublic:
        """Everything wrong with a spec; queues nothing."""
        return CheckPublic.model_validate(self._post("/spec/check", _plain(spec), repeatable=True))

    def estimate(self, spec: Spec) -> EstimatePublic:
        """What a study would spend; queues nothing."""
        return EstimatePublic.model_validate(self._post("/estimate", _plain(spec), repeatable=True))

    def upload(self, name: str, file: Path, format: Literal["jsonl", "csv", "parquet"] | None = None) -> DatasetPublic:
        """Upload a data set, streamed; its ending tells the format. `data` of the answer goes into a spec."""
        kind = format or file.suffix.removeprefix(".")
        with file.open("rb") as content:
            answer = self._connection.send(
                "POST", "/datasets", repeatable=False, params={"name": name, "format": kind}, content=content
            )
        return DatasetPublic.model_validate_json(answer.content)

    def datasets(self) -> Iterator[DatasetPublic]:
        """Data sets by name."""
        return self._items("/datasets", DatasetPublic)

    def delete_dataset(self, name: str) -> None:
        """Delete a data set that nothing unfinished reads."""
        self._connection.send("DELETE", f"/datasets/{_part(name)}")

    def pipelines(self) -> Iterator[PipelinePublic]:
        """Pipelines that studies have used."""
        return self._items("/pipelines", PipelinePublic)

    def pipeline(self, digest: str) -> PipelineDetail:
        """One pipeline with its content."""
        return self._one(f"/pipelines/{_part(digest)}", PipelineDetail)

    def models(self, name: str = "") -> Iterator[ModelPublic]:
        """Models that specs can name."""
        return self._items("/models", ModelPublic, {"name": name})

    def fleet(self) -> FleetPublic:
        """The operator's model servers."""
        return self._one("/fleet", FleetPublic)

    def close(self) -> None:
        """Give back the connections."""
        self._connection.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _act(self, study_id: str, action: str) -> StudyPublic:
        return StudyPublic.model_validate(self._post(f"/studies/{_part(study_id)}/{action}", None, repeatable=True))

    def _post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, repeatable: bool = False) -> Any:
        options: dict[str, Any] = {"headers": headers or {}}
        if body is not None:
            options["json"] = body
        return self._connection.send("POST", path, repeatable, **options).json()

    def _one(self, path: str, model: type[Item], query: Mapping[str, Any] | None = None) -> Item:
        return model.model_validate_json(self._connection.send("GET", path, params=_given(query)).content)

    def _items(self, path: str, model: type[Item], query: Mapping[str, Any] | None = None) -> Iterator[Item]:
        given: dict[str, Any] = {**_given(query), "limit": PAGE}
        while True:
            answer = self._connection.send("GET", path, params=given)
            page = Page[model].model_validate_json(answer.content)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None:
                return
            given["cursor"] = page.next


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value not in (None, "", [])}


def _part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def _plain(spec: Spec) -> Any:
    return spec.model_dump(mode="json") if isinstance(spec, StudySpec) else dict(spec)
