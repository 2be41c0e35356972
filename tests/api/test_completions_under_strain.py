"""The plan endpoint where its servers fail, hang or are asked by too many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI

from api.app import create_app
from api.settings import Settings
from tests.api.service import Service, ended, served_app, submit, tiny_spec, until
from tests.env.backends.scripted import Script, completion, hang, status
from tests.env.engine.live import running


@pytest.fixture(scope="module")
def script() -> Script:
    return Script(completion)


@pytest.fixture(scope="module")
def remote(service: Service, script: Script) -> Iterator[str]:
    """A plan whose model is behind a server that does as it is told."""
    with running(script.app) as url:
        spec = tiny_spec(name="remote")
        model = {"backend": "openai", "base_url": f"{url}/v1", "model": "m", "parameters": 1e6, "max_retries": 0}
        spec["pipeline"]["models"] = {"m": model}
        stage = spec["pipeline"]["stages"][0] | {"models": ["m"], "parser": {"kind": "text"}}
        spec["pipeline"]["stages"] = [stage]
        spec["budget"] = {"plan": {"limit": 1e9, "unit": "flops"}, "search": {"trials": 1}}
        study = ended(service, submit(service, spec))
        assert study["status"] == "done", study["error"]
        yield str(study["id"])


@pytest.fixture
def answers(script: Script) -> Iterator[Script]:
    yield script
    script.answers[:] = [completion]


@contextmanager
def opened(service: Service, **settings: Any) -> Iterator[OpenAI]:
    """A client of the same archive served with other limits."""
    app = create_app(service.runtime, settings=Settings(**settings))
    with (
        served_app(service.runtime, app) as running,
        OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        client.desk = running.app.state.desk  # type: ignore[attr-defined]
        yield client


def ask(client: OpenAI, study: str, **more: Any) -> Any:
    return client.chat.completions.create(model=f"plan:{study}", messages=[{"role": "user", "content": "w1"}], **more)


def test_a_server_that_fails_is_a_bad_gateway_and_said_to_be(service: Service, remote: str, answers: Script) -> None:
    with opened(service) as client:
        assert "seed" in ask(client, remote).choices[0].message.content
        answers.answers[:] = [status(500, "out of memory")]
        with pytest.raises(openai.InternalServerError, match="out of memory") as failed:
            ask(client, remote)
        assert (failed.value.status_code, failed.value.code) == (502, "model_server_failed")


def test_a_stream_that_cannot_be_finished_ends_with_an_error(service: Service, remote: str, answers: Script) -> None:
    with opened(service) as client:
        answers.answers[:] = [status(500, "out of memory")]
        with pytest.raises(openai.APIError, match="out of memory"):
            list(ask(client, remote, stream=True))


def test_too_many_queries_are_turned_away_and_waiting_ones_not_kept_for_ever(
    service: Service, remote: str, answers: Script
) -> None:
    answers.answers[:] = [hang]
    with opened(service, plan_queries=1, plan_queue=1, plan_queue_wait_s=0.5) as client:
        first = threading.Thread(target=_asked, args=(client, remote), daemon=True)
        first.start()
        until(lambda: client.desk.admission.running == 1)  # type: ignore[attr-defined]
        found: list[openai.APIStatusError] = []
        second = threading.Thread(target=_asked, args=(client, remote, found))
        second.start()
        until(lambda: client.desk.admission.waiting == 1)  # type: ignore[attr-defined]
        with pytest.raises(openai.RateLimitError) as full:
            ask(client, remote)
        assert full.value.response.headers["retry-after"]
        second.join(timeout=10)
        assert [error.status_code for error in found] == [503]


def test_a_client_that_gives_up_frees_its_place(service: Service, remote: str, answers: Script) -> None:
    answers.answers[:] = [hang]
    with opened(service) as client:
        with pytest.raises(openai.APITimeoutError):
            ask(client, remote, timeout=0.4)
        until(lambda: client.desk.admission.running == 0, patience=3)  # type: ignore[attr-defined]


def test_plans_asked_last_stay_open_and_others_are_closed(service: Service, remote: str, finished: str) -> None:
    with opened(service, plans_open=1) as client:
        ask(client, remote)
        assert client.desk.open_studies == (remote,)  # type: ignore[attr-defined]
        ask(client, finished)
        assert client.desk.open_studies == (finished,)  # type: ignore[attr-defined]
        ask(client, remote)


def _asked(client: OpenAI, study: str, found: list[openai.APIStatusError] | None = None) -> None:
    try:
        ask(client, study)
    except openai.APIStatusError as error:
        if found is not None:
            found.append(error)
    except openai.APIError:
        pass
