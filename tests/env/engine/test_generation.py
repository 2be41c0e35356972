"""The engine against transformers, and against itself in other batches."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from env.backends import Sampling
from env.engine.engine import Engine
from env.engine.jobs import Generated, Job
from env.errors import BackendError
from tests.env.engine.checkpoints import write_checkpoint


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(8, 108) for _ in range(rng.randint(1, longest)))] for _ in range(count)]


def run(engine: Engine, jobs: Sequence[Job]) -> list[tuple[Generated, ...]]:
    done = list(engine.run(jobs))
    assert len(done) == len(jobs)
    assert [job.failure for job in done if job.failure] == []
    return [job.answer() for job in jobs]


@pytest.fixture(params=["tiny", "grouped"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_greedy_tokens_are_those_of_transformers(checkpoint: Path) -> None:
    engine = Engine(checkpoint, "cpu")
    reference = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    asked = prompts(12)
    answers = run(engine, [Job(prompt, Sampling(temperature=0, max_tokens=25), (0,)) for prompt in asked])
    for prompt, (mine,) in zip(asked, answers, strict=True):
        tokens = torch.tensor([prompt])
        grown = reference.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=25, pad_token_id=0
        )
        assert list(mine.tokens) == grown[0, len(prompt) :].tolist()
    engine.close()


def test_log_probabilities_are_those_of_transformers_at_temperature_one(checkpoint: Path) -> None:
    engine = Engine(checkpoint, "cpu")
    reference = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    asked = prompts(8, seed=2)
    settings = [Sampling(max_tokens=20), Sampling(temperature=0.5, top_p=0.8, max_tokens=20)]
    jobs = [Job(prompt, settings[number % 2], (0, 1)) for number, prompt in enumerate(asked)]
    for prompt, answer in zip(asked, run(engine, jobs), strict=True):
        for mine in answer:
            with torch.inference_mode():
                logits = reference(torch.tensor([[*prompt, *mine.tokens]])).logits[0].double()
            ahead = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            theirs = ahead.gather(1, torch.tensor(mine.tokens)[:, None]).squeeze(1)
            assert torch.allclose(torch.tensor(mine.logprobs, dtype=torch.float64), theirs, atol=1e-4)
    engine.close()


def mixed_jobs() -> list[Job]:
    settings = [
        Sampling(max_tokens=30),
        Sampling(temperature=0.7, max_tokens=11),
        Sampling(top_p=0.9, max_tokens=25, seed=4),
        Sampling(temperature=0, max_tokens=17),
        Sampling(max_tokens=40, stop=("7 w", "+")),
    ]
    return [Job(prompt, settings[n % 5], tuple(range(n % 7 + 1))) for n, prompt in enumerate(prompts(80, seed=3))]


def test_a_draw_is_the_same_alone_and_in_any_batch(tiny: Path, tiny_engine: Engine) -> None:
    together = run(tiny_engine, mixed_jobs())
    narrow = Engine(tiny, "cpu", max_rows=5)
    squeezed = run(narrow, mixed_jobs())
    narrow.close()
    assert [[draw.tokens for draw in answer] for answer in squeezed] == [
        [draw.tokens for draw in answer] for answer in together
    ]
    for number in (0, 17, 42, 61, 79):
        whole = mixed_jobs()[number]
        last = whole.indices[-1]
        [[alone]] = run(tiny_engine, [Job(whole.tokens, whole.sampling, (last,))])
        assert alone.text == together[number][-1].text
        assert alone.tokens == together[number][-1].tokens


def test_rows_that_outnumber_the_batch_are_all_drawn(tiny: Path) -> None:
    engine = Engine(tiny, "cpu", max_rows=8)
    answers = run(engine, [Job(prompt, Sampling(max_tokens=6), tuple(range(20))) for prompt in prompts(3)])
    assert [len(answer) for answer in answers] == [20, 20, 20]
    engine.close()


def test_very_different_lengths_share_a_batch(tiny_engine: Engine) -> None:
    short, long = [1, 9], [1] + [10] * 200
    jobs = [Job(short, Sampling(max_tokens=200), (0, 1)), Job(long, Sampling(max_tokens=50), (0,))]
    later = [Job([1, 8 + n], Sampling(max_tokens=3 * n + 1), (0, 1, 2)) for n in range(30)]
    answers = run(tiny_engine, jobs + later)
    assert [len(answer) for answer in answers] == [2, 1, *[3] * 30]
    assert all(0 < len(draw.tokens) <= 3 * n + 1 for n, answer in enumerate(answers[2:]) for draw in answer)


def test_a_context_that_ends_first_cuts_the_draw(tiny_engine: Engine) -> None:
    asked = [Job([1] + [9 + n] * 250, Sampling(max_tokens=100), (0, 1, 2)) for n in range(5)]
    found = [draw for answer in run(tiny_engine, asked) for draw in answer]
    assert all(len(draw.tokens) <= 5 for draw in found)
    assert any(draw.finish_reason == "length" and len(draw.tokens) == 5 for draw in found)


def test_consecutive_seeds_make_choice_j_the_first_choice_of_seed_plus_j(tiny_engine: Engine) -> None:
    [many] = run(tiny_engine, [Job([1, 20], Sampling(seed=10, max_tokens=9), (0, 1, 2), consecutive_seeds=True)])
    [[third]] = run(tiny_engine, [Job([1, 20], Sampling(seed=12, max_tokens=9), (0,), consecutive_seeds=True)])
    assert third.text == many[2].text


@pytest.mark.parametrize(
    ("tokens", "sampling", "word"),
    [
        ([], Sampling(), "empty"),
        ([1] * 256, Sampling(), "context"),
        ([999], Sampling(), "vocabulary"),
        ([1], Sampling(temperature=-1), "temperature"),
        ([1], Sampling(temperature=float("nan")), "temperature"),
        ([1], Sampling(top_p=1.5), "top_p"),
        ([1], Sampling(max_tokens=0), "max_tokens"),
        ([1], Sampling(stop=("",)), "stop"),
    ],
)
def test_a_job_that_cannot_run_says_why_and_harms_no_other(
    tiny_engine: Engine, tokens: list[int], sampling: Sampling, word: str
) -> None:
    bad, good = Job(tokens, sampling, (0,)), Job([1, 9], Sampling(max_tokens=3), (0,))
    list(tiny_engine.run([bad, good]))
    assert word in (bad.failure or "")
    assert good.failure is None
    assert good.answer()


def test_broken_weights_fail_the_job(tiny: Path) -> None:
    engine = Engine(tiny, "cpu")
    engine._model._weights.norm.fill_(float("nan"))
    [job] = engine.run([Job([1, 9], Sampling(max_tokens=3), (0, 1))])
    assert "finite" in (job.failure or "")
    engine.close()


def test_an_error_while_decoding_fails_the_jobs_and_the_engine_lives_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(engine._model, "decode", lambda *_: 1 / 0)
        [broken] = engine.run([Job([1, 9], Sampling(max_tokens=3), (0,))])
    assert "ZeroDivisionError" in (broken.failure or "")
    assert run(engine, [Job([1, 9], Sampling(max_tokens=3), (0,))])
    engine.close()


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_torch_threads")
def test_the_engine_uses_torch_s_number_of_threads(tmp_path: Path) -> None:
    engine = Engine(write_checkpoint(tmp_path / "wide", hidden_size=128, intermediate_size=256), "cpu")
    assert engine._executor.submit(torch.get_num_threads).result() == 2
    engine.close()


@pytest.mark.usefixtures("two_torch_threads")
@pytest.mark.skipif(sys.platform != "linux", reason="thread-local counts are set where torch is built with libgomp")
def test_a_tiny_model_takes_one_thread_and_leaves_other_threads_alone(tiny: Path) -> None:
    engine = Engine(tiny, "cpu")
    assert engine._executor.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
    engine.close()


def test_a_closed_engine_refuses_work(tiny: Path) -> None:
    engine = Engine(tiny, "cpu")
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        list(engine.run([Job([1, 9], Sampling(), (0,))]))


def test_closing_fails_what_is_unfinished(tiny: Path) -> None:
    engine = Engine(tiny, "cpu", max_rows=4)
    done: list[Job] = []
    engine.submit([Job(prompt, Sampling(max_tokens=200), (0, 1)) for prompt in prompts(200)], done.append)
    engine.close()
    assert len(done) == 200
    assert any("closed" in (job.failure or "") for job in done)
