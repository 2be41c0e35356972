"""The fleet with real vLLM on the processor: what servers without vLLM cannot show. Run by `make test-vllm`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from env.backends import (
    Backend,
    Draw,
    DrawRequest,
    Failed,
    Message,
    OpenAIBackend,
    Sampling,
    ScoreRequest,
    Settled,
    TorchBackend,
)
from env.embedded import checkpoint_path, ledger_examples
from env.embedded.prompts import retrieve_prompt
from env.fleet import Fleet
from env.fleet.backend import FleetBackend
from env.fleet.load import FleetFile, fleet_of
from env.fleet.processes import ProcessMark, group_members
from env.fleet.shared import close_shared_fleets
from env.fleet.state import FleetState, StateFile
from env.spec.pipeline import FleetModel
from tests.env.fleet.fleets import REPOSITORY, room_for, until

EXECUTABLE = Path(os.environ.get("APPORTION_TEST_VLLM", REPOSITORY / ".vllm-venv" / "bin" / "vllm"))

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not EXECUTABLE.exists(),
        reason=f"no vLLM at {EXECUTABLE}: `make test-vllm` builds it (Linux, 2.5 GB), or set APPORTION_TEST_VLLM",
    ),
]


def vllm_fleet(folder: Path, *models: str, **changes: Any) -> FleetFile:
    """Embedded models on vLLM's CPU build."""
    model = {
        "dtype": "float32",
        "max_model_len": 256,
        "memory": "2.3GiB",
        "arguments": ["--enforce-eager", "--block-size", "32"],
        "environment": {"OMP_NUM_THREADS": "1"},
    }
    spec = {
        "executable": str(EXECUTABLE.absolute()),
        "devices": "cpu",
        "folder": "state",
        "ports": [18600, 18699],
        "ready_timeout_s": 400,
        "health": {"interval_s": 2, "timeout_s": 20, "failures": 3, "probe_interval_s": 8, "probe_timeout_s": 30},
        "models": {name: {"checkpoint": f"embedded:{name}", **model} for name in models},
    }
    file = fleet_of(spec | changes, folder / "fleet.yaml")
    file.path.write_text(yaml.safe_dump(file.spec.model_dump(mode="json")))
    return file


@pytest.fixture(scope="module")
def fleet_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetFile]:
    """One server for all tests that do not count loads."""
    yield vllm_fleet(tmp_path_factory.mktemp("vllm"), "s")
    close_shared_fleets()


def opened(file: FleetFile, **changes: Any) -> FleetBackend:
    return FleetBackend(file, FleetModel.model_validate({"backend": "fleet", "model": "s"} | changes))


def state_of(file: FleetFile) -> FleetState:
    state = StateFile(file.folder).read()
    assert state is not None
    return state


def leader(file: FleetFile) -> ProcessMark:
    process = state_of(file).servers[0].process
    assert process is not None
    return process.mark


def prompts(count: int) -> list[tuple[Message, ...]]:
    examples = ledger_examples("search", count)
    texts = [retrieve_prompt(example.fields["story"], example.fields["person"]) for example in examples]  # type: ignore[arg-type]
    return [(Message("system", "retrieve"), Message("user", text)) for text in texts]


async def drawn(backend: Backend, *requests: DrawRequest) -> list[tuple[Draw, ...]]:
    outcomes = [outcome async for outcome in backend.generate(requests)]
    failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
    assert not failed, failed
    settled = [outcome for outcome in outcomes if isinstance(outcome, Settled)]
    return [outcome.draws for outcome in sorted(settled, key=lambda outcome: outcome.position)]


@pytest.mark.asyncio
async def test_draws_are_decided_by_prompt_seed_and_index_and_carry_log_probabilities(fleet_file: FleetFile) -> None:
    backend = opened(fleet_file)
    sampling = Sampling(temperature=1.5, max_tokens=24, seed=4)
    [first], second = prompts(2)[:1], prompts(2)[1]
    [many], [again], [some] = [
        await drawn(backend, DrawRequest(first, sampling, indices)) for indices in (range8(), range8(), (2, 5))
    ]
    assert [draw.index for draw in many] == list(range(8))
    assert [draw.text for draw in many] == [draw.text for draw in again]
    assert [draw.text for draw in some] == [many[2].text, many[5].text]
    assert len({draw.text for draw in many}) > 1
    assert all(draw.logprob is not None and draw.logprob <= 0 for draw in many)
    [other_seed] = await drawn(backend, DrawRequest(first, Sampling(1.5, 1.0, 24, (), 5), range8()))
    [other_prompt] = await drawn(backend, DrawRequest(second, sampling, range8()))
    assert [draw.text for draw in other_seed] != [draw.text for draw in many]
    assert [draw.text for draw in other_prompt] != [draw.text for draw in many]
    assert backend.load_seconds > 0
    print(f"\nload of s: {backend.load_seconds:.1f} s")
    await backend.close()


def range8() -> tuple[int, ...]:
    return tuple(range(8))


@pytest.mark.asyncio
async def test_greedy_draws_and_their_log_probabilities_are_the_torch_engines(fleet_file: FleetFile) -> None:
    torch, vllm = TorchBackend(checkpoint_path("s"), "cpu"), opened(fleet_file)
    requests = [DrawRequest(prompt, Sampling(temperature=0, max_tokens=40), (0,)) for prompt in prompts(12)]
    ours, theirs = await drawn(torch, *requests), await drawn(vllm, *requests)
    differences = []
    for [mine], [yours] in zip(ours, theirs, strict=True):
        assert mine.text == yours.text.strip(), "vLLM's detokeniser leaves a space before the first word"
        assert (mine.prompt_tokens, mine.output_tokens) == (yours.prompt_tokens, yours.output_tokens)
        assert mine.logprob is not None
        assert yours.logprob is not None
        differences.append(abs(mine.logprob - yours.logprob))
    print(f"\nlargest difference of a sequence's log-probability: {max(differences):.2e}")
    assert max(differences) < 1e-3
    await torch.close()
    await vllm.close()


@pytest.mark.asyncio
async def test_a_killed_server_is_back_on_its_url_and_none_of_its_processes_stays(fleet_file: FleetFile) -> None:
    backend = opened(fleet_file, max_retries=0)
    await drawn(backend, DrawRequest(prompts(1)[0], Sampling(max_tokens=4), (0,)))
    first = leader(fleet_file)
    family = group_members(first.pid)
    assert len(family) > 1, "vLLM's engine runs in a process of its own"
    os.kill(first.pid, signal.SIGKILL)
    started = time.monotonic()
    await drawn(backend, DrawRequest(prompts(1)[0], Sampling(max_tokens=4), (1,)))
    print(f"\nserving again {time.monotonic() - started:.1f} s after kill -9")
    assert leader(fleet_file) != first
    assert not [mark for mark in family if mark.alive]
    server = state_of(fleet_file).servers[0]
    assert server.restarts == 1
    assert server.restart_seconds > 0
    assert state_of(fleet_file).loads == 1, "a restart is no load"
    await backend.close()


@pytest.mark.asyncio
async def test_an_engine_frozen_behind_a_healthy_page_is_found_and_replaced(fleet_file: FleetFile) -> None:
    backend = opened(fleet_file)
    await drawn(backend, DrawRequest(prompts(1)[0], Sampling(max_tokens=4), (0,)))
    before, first = state_of(fleet_file).servers[0].restarts, leader(fleet_file)
    for mark in group_members(first.pid):
        if mark.pid != first.pid:
            os.kill(mark.pid, signal.SIGSTOP)
    await until(lambda: state_of(fleet_file).servers[0].restarts == before + 1, "the frozen engine was replaced", 300)
    assert "one-token request" in state_of(fleet_file).servers[0].reason
    assert not group_members(first.pid)
    await drawn(backend, DrawRequest(prompts(1)[0], Sampling(max_tokens=4), (1,)))
    await backend.close()


async def scored(backend: Backend, requests: list[ScoreRequest]) -> list[float]:
    found = [outcome async for outcome in backend.score(requests)]
    assert all(isinstance(one, Settled) for one in found), found
    values = {one.position: one.draws[0].score for one in found}
    await backend.close()
    scores = [values[place] for place in range(len(requests))]
    return [score for score in scores if score is not None]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (
            [],
            [
                {"api": "classify"},
                {"api": "classify", "scores": "logit"},
                {"api": "pooling"},
                {"api": "reward", "rewards": "outcome"},
            ],
        ),
        # One row a token: the last one is the whole reply's score.
        (["--pooler-config.task", "token_classify"], [{"api": "reward", "rewards": "process"}]),
    ],
    ids=["classifier", "process"],
)
async def test_a_verifiers_scores_through_vllms_endpoints_are_the_torch_engines(
    tmp_path: Path, arguments: list[str], asked: list[dict[str, Any]]
) -> None:
    file = judge_fleet(tmp_path, arguments)
    requests = [
        ScoreRequest((*prompt, Message("assistant", f"w{n} = 7")), partial)
        for n, prompt in enumerate(prompts(4))
        for partial in (False, True)
    ]
    expected = await scored(TorchBackend(checkpoint_path("verifier"), "cpu"), requests)
    assert len({round(score, 3) for score in expected}) > 1
    for how in asked:
        found = await scored(FleetBackend(file, verifier(**how)), requests)
        differences = [abs(one - other) for one, other in zip(found, expected, strict=True)]
        print(f"\n{how}: largest difference {max(differences):.2e}")
        assert max(differences) < 1e-3, how
    if not arguments:
        await _also_as_pairs_and_refused_as_steps(file, requests)
    close_shared_fleets()


async def _also_as_pairs_and_refused_as_steps(file: FleetFile, requests: list[ScoreRequest]) -> None:
    """Of the same server: /score, and what vLLM says where its pooling task is another."""
    whole = [request for request in requests if not request.partial]
    pairs = await scored(FleetBackend(file, verifier(api="score")), whole)
    assert all(0 <= score <= 1 for score in pairs)
    assert len(set(pairs)) > 1
    print(f"\n/score: {pairs}")
    steps = FleetBackend(file, verifier(api="reward", rewards="process", max_retries=0))
    [refused] = [outcome async for outcome in steps.score(whole[:1])]
    assert isinstance(refused, Failed)
    assert "--pooler-config.task token_classify" in refused.reason
    await steps.close()


def judge_fleet(folder: Path, arguments: list[str]) -> FleetFile:
    close_shared_fleets()
    served = vllm_fleet(folder, "s").spec.models["s"].model_dump(mode="json", exclude_unset=True)
    changed = {"checkpoint": "embedded:verifier", "runner": "pooling", "arguments": [*served["arguments"], *arguments]}
    return vllm_fleet(folder, models={"judge": served | changed})


def verifier(**how: Any) -> FleetModel:
    return FleetModel.model_validate({"backend": "fleet", "model": "judge"} | how)


@pytest.mark.asyncio
async def test_no_process_of_vllm_outlives_an_owner_killed_with_sigkill(tmp_path: Path) -> None:
    close_shared_fleets()
    file = vllm_fleet(tmp_path, "s")
    owner = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-m", "tests.env.fleet.owner", str(file.path), "s"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert owner.stdout is not None
    line = await asyncio.to_thread(owner.stdout.readline)
    family = group_members(json.loads(line)["pids"][0])
    assert len(family) > 1
    owner.kill()
    owner.wait()
    started = time.monotonic()
    await until(lambda: not [mark for mark in family if mark.alive], "every process of vLLM is gone", 10)
    print(f"\n{len(family)} processes gone {time.monotonic() - started:.1f} s after the owner's kill -9")


@pytest.mark.asyncio
async def test_two_models_of_which_one_fits_take_turns(tmp_path: Path) -> None:
    close_shared_fleets()
    share = {"cpu_share": 2.3 * room_for(1)["devices"]["cpu_share"]}
    async with Fleet(vllm_fleet(tmp_path, "s", "m", devices=share)) as fleet:
        fleet.expect([["s"], ["m"]])
        for name in ("s", "m"):
            async with fleet.acquire([name]) as lease:
                backend = OpenAIBackend(lease.urls[name], name, timeout_s=120)
                [[draw]] = await drawn(backend, DrawRequest(prompts(1)[0], Sampling(max_tokens=8), (0,)))
                assert draw.output_tokens > 0
                await backend.close()
            print(f"\n{name} loaded in {lease.load_seconds:.1f} s")
        assert fleet.server("s") is None
        assert fleet.times.loads == 2
        assert fleet.times.load_seconds > fleet.times.inference_seconds
    # vLLM's CPU build refuses sleep mode: found out once, with the first model, and remembered.
    assert StateFile(fleet.file.folder).remembered()["sleep"] is False
    assert "--enable-sleep-mode" not in (fleet.file.folder / "m.log").read_text().splitlines()[0]
