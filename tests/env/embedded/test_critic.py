"""The shipped critic: its prompts fit, the backend runs them, and judging, revising and fusing are worth their cost."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
import torch
from jinja2.sandbox import SandboxedEnvironment
from transformers import AutoTokenizer, LlamaForCausalLM

from env.backends import DrawRequest, Message, Sampling, Settled, TorchBackend
from env.embedded import (
    CRITIC_NAME,
    CRITIC_PROMPTS,
    TEMPERATURE,
    checkpoint_path,
    ledger_examples,
    parse_number,
    parse_verdict,
)
from env.embedded.architecture import LONGEST_SEQUENCE
from env.embedded.corpus import GRADES, solve_lesson
from env.embedded.critic import CRITIC_LESSONS, Attempts, is_right, judge_lesson, make_attempts
from env.embedded.curves import vote
from env.embedded.ledger import worked_solution
from env.embedded.prompts import fuse_prompt, judge_prompt, revise_prompt
from env.embedded.sampling import Sampler
from env.embedded.vocabulary import encode, prompt_text

PROMPTS, DRAWS = 40, 8
ATTEMPT = "2 3 ; + 1 5 8 3 ; = 3 8"


class Case:
    """Answers of s to test-split expressions, and the critic."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.users = [str(example.stage_gold["read"]) for example in ledger_examples("test", PROMPTS)]
        self.gold = [parse_number(worked_solution(user)) for user in self.users]
        self.critic = Sampler(checkpoint_path(CRITIC_NAME), seed=0)
        drawn = Sampler(checkpoint_path("s"), seed=0).sample("solve", self.users, DRAWS, TEMPERATURE)
        self.answers = [[one.text for one in row] for row in drawn]
        self.right = [parse_number(text) == self.gold[n] for n, row in enumerate(self.answers) for text in row]

    def ask(self, task: str, prompts: list[str], count: int = 1, temperature: float = TEMPERATURE) -> list[list[str]]:
        drawn = self.critic.sample(task, prompts, count, temperature, most_tokens=112)
        return [[one.text for one in row] for row in drawn]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.mark.parametrize("attempt", [ATTEMPT, "2 3 ; +", "", "red " * 150])
def test_templates_render_what_the_critic_was_trained_on(attempt: str) -> None:
    environment = SandboxedEnvironment()
    rendered = {task: environment.from_string(template) for task, template in CRITIC_PROMPTS.items()}
    judged = rendered["judge"].render(prompt="2 3 + 1 5", attempt=attempt)
    assert judged.split() == judge_prompt("2 3 + 1 5", attempt).split()
    revised = rendered["revise"].render(prompt="2 3 + 1 5", attempt=attempt)
    assert revised.split() == revise_prompt("2 3 + 1 5", attempt).split()
    attempts = [ATTEMPT, attempt] * 5
    fused = rendered["fuse"].render(prompt="2 3 + 1 5", attempts=attempts)
    assert fused.split() == fuse_prompt("2 3 + 1 5", attempts).split()


def test_fusing_shows_the_final_numbers_of_up_to_eight_attempts() -> None:
    assert fuse_prompt("2 3 + 1 5", [ATTEMPT, "= 4 1"]) == "2 3 + 1 5 #1 = 3 8 #2 = 4 1"
    assert fuse_prompt("2 3", [ATTEMPT] * 12) == fuse_prompt("2 3", [ATTEMPT] * 8)


def test_prompt_and_reply_fit_the_context_whatever_the_attempt() -> None:
    hardest = "9 9" + " - 4 * 0 2" * 7
    reply = len(encode(worked_solution(f"{hardest} - 4 3"))) + 2
    junk = "red " * 300
    for task, user in (
        ("judge", judge_prompt(hardest, junk)),
        ("revise", revise_prompt(hardest, junk)),
        ("fuse", fuse_prompt(hardest, [junk] * 9)),
    ):
        assert len(encode(prompt_text(task, user))) + reply <= LONGEST_SEQUENCE


def test_a_verdict_is_the_last_word() -> None:
    assert parse_verdict(f"{ATTEMPT} #1") is True
    assert parse_verdict(f"{ATTEMPT} x1") is False
    assert parse_verdict(ATTEMPT) is None
    assert parse_verdict("") is None


def test_lessons_hold_the_right_working_whatever_the_attempt() -> None:
    rng = random.Random(0)
    for lesson_of in CRITIC_LESSONS.values():
        attempts = make_attempts(rng)
        worked, _, _ = attempts.lesson.target.rpartition(" ; ")
        assert lesson_of(rng, attempts).target.startswith(worked)


def test_a_judge_lesson_ends_in_the_truth_about_the_final_number() -> None:
    rng = random.Random(0)
    lesson = solve_lesson(rng, GRADES[-1])
    tens, units = lesson.target.split()[-2:]
    for answer, right in ((lesson.target, True), (f"= {(int(tens) + 1) % 10} {units}", False), ("red", False)):
        target = judge_lesson(rng, Attempts(lesson, (answer,))).target
        assert parse_verdict(target) is is_right(lesson, answer) is right


def test_the_sampler_agrees_with_transformers() -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint_path(CRITIC_NAME))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path(CRITIC_NAME))
    user = judge_prompt("2 3 + 1 5", ATTEMPT)
    prompt = tokenizer(prompt_text("judge", user), return_tensors="pt", add_special_tokens=False)
    generated = model.generate(**prompt, do_sample=False, max_new_tokens=60)[0, prompt.input_ids.shape[1] :]
    text = tokenizer.decode(generated, skip_special_tokens=True)
    assert Sampler(checkpoint_path(CRITIC_NAME)).sample("judge", [user], 1, 0.0)[0][0].text == text


@pytest.mark.asyncio
async def test_the_backend_judges_revises_and_fuses() -> None:
    wrong = "2 3 ; + 1 5 9 3 ; = 3 9"
    asked = {
        "judge": [judge_prompt("2 3 + 1 5", ATTEMPT), judge_prompt("2 3 + 1 5", wrong)],
        "revise": [revise_prompt("2 3 + 1 5", wrong)],
        "fuse": [fuse_prompt("2 3 + 1 5", [wrong, ATTEMPT])],
    }
    requests = [
        DrawRequest((Message("system", task), Message("user", user)), Sampling(temperature=0, max_tokens=80), (0,))
        for task, users in asked.items()
        for user in users
    ]
    backend = TorchBackend(checkpoint_path(CRITIC_NAME), "cpu")
    outcomes = {one.position: one async for one in backend.generate(requests)}
    await backend.close()
    settled = [outcomes[position] for position in range(len(requests))]
    texts = [one.draws[0].text for one in settled if isinstance(one, Settled)]
    accepted = "2 3 ; + 1 5 8 3 ; - 3 8 0 0 ; = 0 0 #1"
    refused = "2 3 ; + 1 5 8 3 ; - 3 9 9 9 ; = 9 9 x1"
    assert texts == [accepted, refused, ATTEMPT, ATTEMPT]


def test_votes_of_several_judgements_are_right_more_often_than_one(case: Case) -> None:
    prompts = [judge_prompt(user, text) for user, row in zip(case.users, case.answers, strict=True) for text in row]
    verdicts = [[parse_verdict(text) is True for text in row] for row in case.ask("judge", prompts, 9)]
    once = fmean(yes == hit for row, hit in zip(verdicts, case.right, strict=True) for yes in row)
    voted = fmean((sum(row) > 4) == hit for row, hit in zip(verdicts, case.right, strict=True))
    assert voted > once
    assert voted > 0.85


def test_a_revision_is_right_more_often_than_the_attempt(case: Case) -> None:
    prompts = [revise_prompt(user, text) for user, row in zip(case.users, case.answers, strict=True) for text in row]
    revised = [row[0] for row in case.ask("revise", prompts)]
    numbers = [n for n, row in enumerate(case.answers) for _ in row]
    hits = [parse_number(text) == case.gold[n] for n, text in zip(numbers, revised, strict=True)]
    assert fmean(hits) > fmean(case.right) + 0.1
    assert fmean(after for after, before in zip(hits, case.right, strict=True) if before) > 0.75


@pytest.mark.parametrize("size", [4, 8])
def test_a_fusion_is_not_worse_than_the_vote(case: Case, size: int) -> None:
    groups = [(n, row[at : at + size]) for n, row in enumerate(case.answers) for at in range(0, DRAWS, size)]
    fused = case.ask("fuse", [fuse_prompt(case.users[n], group) for n, group in groups], temperature=1.0)
    voted = [vote([parse_number(text) for text in group]) == case.gold[n] for n, group in groups]
    hits = [parse_number(row[0]) == case.gold[n] for (n, _), row in zip(groups, fused, strict=True)]
    assert fmean(hits) > fmean(voted) - 0.05
