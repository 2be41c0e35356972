"""The typed client against a real service: every kind of call, its errors, and lost connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.access.policy import AccessPolicy
from api.app import create_app
from api.client import (
    ChangedMeanwhile,
    Client,
    Conflict,
    FaultyRequest,
    Missing,
    NotAllowed,
    Unreachable,
)
from env.spec import StudySpec
from tests.api.service import Service, served_app, tiny_spec


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as opened:
        yield opened


def test_a_study_from_its_submission_to_its_plan(client: Client) -> None:
    assert client.check(tiny_spec()).valid
    assert client.estimate(tiny_spec()).trials > 0
    study = client.submit(StudySpec.model_validate(tiny_spec(name="by-client")))
    done = client.wait(study.id)
    assert (done.status, done.name) == ("done", "by-client")
    trials = list(client.trials(study.id, "search"))
    assert len(trials) == done.trials
    assert client.trial(study.id, 1).outcomes
    first, *_ = client.examples(study.id, 1)
    assert client.example(study.id, 1, first.example_id).stages[0].prompts[0].draws
    plan = client.plan(study.id)
    assert done.plan is not None
    assert plan.allocation == done.plan.allocation
    assert client.plan_named("by-client") == plan
    assert client.report(study.id).startswith("# Plan of by-client")
    assert list(client.guidelines(study.id))
    assert {ledger.ledger for ledger in client.ledgers(study.id)} >= {"search"}
    assert any(p.verdict == "accepted" for p in client.proposals(study.id))
    text, tag = client.notes(study.id)
    assert text == ""
    client.set_notes(study.id, "mine", tag)
    with pytest.raises(ChangedMeanwhile):
        client.set_notes(study.id, "theirs", tag)
    client.delete(study.id)
    with pytest.raises(Missing, match="no study"):
        client.study(study.id)


def test_lists_are_fetched_page_after_page(client: Client, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [client.submit(tiny_spec(name="many")).id for _ in range(3)]
    monkeypatch.setattr("api.client.client.PAGE", 1)
    assert [study.id for study in client.studies(name="many")] == ids[::-1]
    copy = client.clone(ids[0], {"name": "many-more"})
    assert [study.id for study in client.studies(q="many-more")] == [copy.id]
    for id in [*ids, copy.id]:
        client.cancel(id)


def test_data_sets_and_catalogues(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\na,b\nc,d\n", encoding="utf-8")
    made = client.upload("by-client", file)
    assert made in list(client.datasets())
    client.delete_dataset("by-client")
    assert any(model.kind == "embedded" for model in client.models("xs"))
    assert [client.pipeline(p.digest).pipeline["stages"] for p in client.pipelines()]
    assert client.fleet().servers == []


def test_errors_carry_the_problem(client: Client, finished: str) -> None:
    with pytest.raises(FaultyRequest, match=r"budget\.plan\.limit") as refused:
        client.submit(tiny_spec(budget={"plan": {"limit": -1}}))
    assert refused.value.status == 422
    assert [fault.path for fault in refused.value.problem.faults] == ["budget.plan.limit"]
    client.submit(tiny_spec(name="held", budget={"plan": {"limit": 1.2e7}, "search": {"trials": 1}}), "one-key")
    with pytest.raises(Conflict):
        client.submit(tiny_spec(name="held-not"), "one-key")
    with pytest.raises(Missing):
        client.trial(finished, 999)
    with pytest.raises(Unreachable, match="apportion serve"), Client("http://127.0.0.1:9") as nowhere:
        nowhere.study("x")


def test_a_token_is_shown_as_an_argument_or_from_the_environment(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(service.runtime, access=AccessPolicy(tokens_needed=True))
    text = service.runtime.archive.tokens.create("client-test", "read").text
    with served_app(service.runtime, app) as guarded:
        monkeypatch.delenv("APPORTION_TOKEN", raising=False)
        with Client(guarded.url) as nobody, pytest.raises(NotAllowed):
            next(nobody.studies())
        with Client(guarded.url, token=text) as reader:
            next(reader.studies())
            with pytest.raises(NotAllowed):
                reader.submit(tiny_spec())
        monkeypatch.setenv("APPORTION_TOKEN", text)
        with Client(guarded.url) as reader:
            next(reader.studies())


def test_events_go_on_after_every_lost_connection(service: Service, finished: str) -> None:
    """A proxy that cuts each connection after some bytes: nothing is lost and nothing comes twice."""
    with Client(service.url) as direct:
        whole = list(direct.events(finished))
    proxy, connections = cutting_proxy(service.url, 1500)
    with proxy, Client(f"http://127.0.0.1:{proxy.getsockname()[1]}") as client:
        assert list(client.events(finished)) == whole
    assert len(connections) > 2


def cutting_proxy(url: str, most: int) -> tuple[socket.socket, list[int]]:
    """A listening socket that passes on at most so many bytes of an answer, and the sizes it passed."""
    target = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    passed: list[int] = []

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with near, socket.create_connection((target.hostname, target.port)) as far:
                far.sendall(near.recv(65536))
                count = 0
                while count < most and (chunk := far.recv(most - count)):
                    near.sendall(chunk)
                    count += len(chunk)
                passed.append(count)

    threading.Thread(target=serve, daemon=True).start()
    return listener, passed
