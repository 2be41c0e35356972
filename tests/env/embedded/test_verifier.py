"""The shipped verifier: the engine and transformers agree on its scores, and these tell right from wrong."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import pytest
import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

from env.backends import Message, ScoreRequest, Settled, TorchBackend
from env.embedded import TEMPERATURE, VERIFIER_NAME, checkpoint_path, ledger_examples, parse_number
from env.embedded.best_of_n import partial_pairs
from env.embedded.ledger import worked_solution
from env.embedded.sampling import Sampler
from env.embedded.verifier import prefix_scores, score_answers
from env.engine.engine import Engine

Scored = list[tuple[str, list[tuple[str, list[float]]]]]
"""Of each prompt, its answers, and each answer's scores after every token."""

PROMPTS, DRAWS = 40, 8


@pytest.fixture(scope="module")
def model() -> LlamaForSequenceClassification:
    torch.set_num_threads(1)
    return LlamaForSequenceClassification.from_pretrained(checkpoint_path(VERIFIER_NAME)).eval()


@pytest.fixture(scope="module")
def scored(model: LlamaForSequenceClassification) -> Scored:
    """Answers of s to test-split expressions."""
    users = [str(example.stage_gold["read"]) for example in ledger_examples("test", PROMPTS)]
    drawn = Sampler(checkpoint_path("s"), seed=0).sample("solve", users, DRAWS, TEMPERATURE)
    return [
        (user, list(zip(texts, prefix_scores(model, "solve", user, texts), strict=True)))
        for user, texts in zip(users, ([one.text for one in row] for row in drawn), strict=True)
    ]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    running = Engine(checkpoint_path(VERIFIER_NAME), "cpu")
    yield running
    running.close()


def _final(user: str) -> str | None:
    return parse_number(worked_solution(user))


def test_the_engine_gives_the_scores_of_transformers(
    engine: Engine, model: LlamaForSequenceClassification, scored: Scored
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path(VERIFIER_NAME))
    user, answers = scored[0]
    for text, scores in answers:
        messages = [("system", "solve"), ("user", user), ("assistant", text)]
        [tokens] = engine.tokenizer.encode_chats([[Message(role, said) for role, said in messages]], False)  # type: ignore[arg-type]
        chat = [{"role": role, "content": said} for role, said in messages]
        assert tokens == tokenizer.apply_chat_template(chat)["input_ids"]
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([tokens])).logits.sigmoid().item()
        assert engine.score([tokens]).result()[0] == pytest.approx(whole, abs=1e-5)
        assert scores[-1] == pytest.approx(whole, abs=1e-5)
        assert engine.score([tokens[:-4]]).result()[0] == pytest.approx(scores[-4 - 1], abs=1e-5)


@pytest.mark.asyncio
async def test_the_backend_scores_conversations() -> None:
    backend = TorchBackend(checkpoint_path(VERIFIER_NAME), "cpu")
    asked = [
        ScoreRequest((Message("system", "solve"), Message("user", "4 0 + 2 3"), Message("assistant", answer)))
        for answer in ("4 0 ; + 2 3 3 6 ; = 6 3", "4 0 ; + 2 3 3 6 ; = 7 3")
    ]
    outcomes = {one.position: one async for one in backend.score(asked)}
    await backend.close()
    right, wrong = (outcomes[position] for position in (0, 1))
    assert isinstance(right, Settled)
    assert isinstance(wrong, Settled)
    assert (right.draws[0].score or 0) > (wrong.draws[0].score or 0)


def test_right_answers_score_higher_than_wrong_ones(scored: Scored) -> None:
    ordered = list[bool]()
    for user, answers in scored:
        right = [scores[-1] for text, scores in answers if parse_number(text) == _final(user)]
        wrong = [scores[-1] for text, scores in answers if parse_number(text) != _final(user)]
        ordered += [high > low for high in right for low in wrong]
    assert len(ordered) > 100
    assert fmean(ordered) > 0.8


def test_right_beginnings_score_higher_than_wrong_ones(scored: Scored) -> None:
    ordered = list[bool]()
    for user, answers in scored:
        pairs = partial_pairs(worked_solution(user).split(), [(text.split(), scores) for text, scores in answers])
        ordered += [high > low for high, low, _ in pairs]
    assert len(ordered) > 500
    assert fmean(ordered) > 0.85


def test_more_candidates_make_a_better_best_one(scored: Scored) -> None:
    def accuracy(size: int) -> float:
        groups = [(user, answers[at : at + size]) for user, answers in scored for at in range(0, DRAWS, size)]
        best = [(user, max(group, key=lambda one: one[1][-1])[0]) for user, group in groups]
        return fmean(parse_number(text) == _final(user) for user, text in best)

    assert accuracy(4) > accuracy(2) > accuracy(1)
    assert accuracy(4) > accuracy(1) + 0.12


def test_scores_mean_what_they_say(scored: Scored) -> None:
    outcomes = [
        (scores[-1], parse_number(text) == _final(user)) for user, answers in scored for text, scores in answers
    ]
    for low, high in ((0.0, 0.3), (0.7, 1.01)):
        inside = [(score, hit) for score, hit in outcomes if low <= score < high]
        assert len(inside) > 20
        assert fmean(hit for _, hit in inside) == pytest.approx(fmean(score for score, _ in inside), abs=0.2)


def test_a_score_does_not_depend_on_what_is_scored_with_it(model: LlamaForSequenceClassification) -> None:
    together = score_answers(model, "solve", "4 0 + 2 3", ["4 0 ; + 2 3 3 6 ; = 6 3", "4 0"])
    alone = score_answers(model, "solve", "4 0 + 2 3", ["4 0"])
    assert together[1] == pytest.approx(alone[0], abs=1e-6)
