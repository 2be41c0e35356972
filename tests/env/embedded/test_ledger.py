"""The task: examples are reproducible, never shared between splits, and their gold follows from the story alone."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from jinja2 import Environment

from env.embedded import DIFFICULTIES, PROMPTS, Difficulty, ledger_examples, parse_ids, parse_ledger, parse_number
from env.embedded.ledger import SPLITS, balances, make_story, stories, worked_solution
from env.embedded.prompts import read_prompt, retrieve_prompt
from env.embedded.vocabulary import PERSON_OF_ALIAS, PRICES, TOKEN_IDS
from env.tasks.example import Example

STORY = ["ann starts with 4 0 .", "bob earns 1 5 .", "bob gives 0 5 to ann ."]


def _person(words: list[str]) -> str:
    return PERSON_OF_ALIAS[" ".join(words)] if words[0] == "the" else words[0]


def _number(words: list[str]) -> int:
    return int("".join(words))


def _follow(sentences: list[str], asked: str) -> tuple[list[int], int]:
    """Relevant sentence numbers and the final balance, read from the text with none of the generator's code."""
    relevant, balance = list[int](), 0
    for number, sentence in enumerate(sentences, 1):
        words = sentence.removesuffix(" .").split()
        verb = next(i for i, word in enumerate(words) if word in ("starts", "earns", "spends", "buys", "gives"))
        who, what = _person(words[:verb]), words[verb + 1 :]
        if words[verb] == "gives" and asked == _person(what[3:]):
            change = _number(what[:2])
        elif who != asked:
            continue
        elif words[verb] == "starts":
            change = _number(what[1:])
        elif words[verb] == "buys":
            change = -int(what[0]) * PRICES[what[1], what[2]]
        else:
            change = _number(what[:2]) * (1 if words[verb] == "earns" else -1)
        relevant.append(number)
        balance += change
        assert 0 <= balance <= 99
    return relevant, balance


def _story(example: Example) -> list[str]:
    story = example.fields["story"]
    assert isinstance(story, list)
    return [str(sentence) for sentence in story]


def test_the_same_arguments_give_the_same_examples() -> None:
    assert ledger_examples("search", 30, seed=3) == ledger_examples("search", 30, seed=3)


def test_a_longer_data_set_begins_with_the_shorter_one() -> None:
    assert ledger_examples("search", 30)[:10] == ledger_examples("search", 10)


def test_another_seed_gives_other_examples() -> None:
    first, second = ({example.id for example in ledger_examples("search", 50, seed=seed)} for seed in (0, 1))
    assert not first & second


def test_ids_are_unique_within_a_data_set() -> None:
    assert len({example.id for example in ledger_examples("test", 200)}) == 200


def test_no_story_is_in_two_splits() -> None:
    by_split = {
        split: {(tuple(_story(example)), example.fields["person"]) for example in ledger_examples(split, 200)}
        for split in SPLITS
    }
    assert not by_split["train"] & by_split["search"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["search"] & by_split["test"]


def test_the_content_alone_decides_the_split() -> None:
    rng = random.Random(0)
    drawn = [make_story(rng, DIFFICULTIES["easy"]) for _ in range(400)]
    assert {story.split for story in drawn} == set(SPLITS)
    for split in SPLITS:
        source = stories(split, random.Random(0))
        assert all(next(source).split == split for _ in range(20))


def test_gold_follows_from_the_text_of_the_story() -> None:
    for example in ledger_examples("search", 200):
        relevant, balance = _follow(_story(example), str(example.fields["person"]))
        assert example.stage_gold["retrieve"] == relevant
        assert example.answers == (str(balance),)
        assert example.stage_gold["solve"] == str(balance)
        assert balances(str(example.stage_gold["read"]))[-1] == balance


def test_answers_have_two_digits() -> None:
    assert all(len(example.answers[0]) == 2 for example in ledger_examples("search", 200))


def test_worked_solution_shows_products_and_balances_units_first() -> None:
    assert worked_solution("2 3 + 1 5 - 3 * 0 7") == "2 3 ; + 1 5 8 3 ; - 3 * 0 7 2 1 7 1 ; = 1 7"


def test_balances_wrap_around_a_hundred() -> None:
    assert balances("9 0 + 2 0 - 3 0") == [90, 10, 80]


@pytest.mark.parametrize("text", ["2 3 +", "+ 2 3", "2 3 1 5", "2 3 * 0 4"])
def test_a_broken_expression_is_refused(text: str) -> None:
    assert parse_ledger(text) is None
    with pytest.raises(ValueError):
        balances(text)


def test_harder_levels_have_longer_stories_and_longer_ledgers() -> None:
    lengths, ledgers = list[float](), list[float]()
    for level in DIFFICULTIES:
        examples = ledger_examples("search", 60, difficulty=level)
        assert {example.fields["level"] for example in examples} == {level}
        lengths.append(fmean(len(_story(example)) for example in examples))
        ledgers.append(fmean(len(str(example.stage_gold["read"]).split()) for example in examples))
    assert lengths == sorted(lengths)
    assert ledgers == sorted(ledgers)


def test_the_mix_holds_every_level() -> None:
    assert {example.fields["level"] for example in ledger_examples("search", 60)} == set(DIFFICULTIES)


def test_difficulty_sets_people_operations_distractors_and_aliases() -> None:
    rng = random.Random(1)
    for _ in range(50):
        story = make_story(rng, Difficulty(people=2, operations=(3, 3), distractors=(2, 2), alias_share=0.0))
        assert len(story.sentences) == 6
        assert len(story.relevant) == 4
        assert len({person for sentence in story.sentences for person in sentence.effects}) <= 2
        assert not any(" the " in f" {sentence.text}" for sentence in story.sentences)


@pytest.mark.parametrize(("split", "difficulty"), [("validation", "mixed"), ("test", "brutal")])
def test_unknown_names_are_refused_with_the_choices(split: str, difficulty: str) -> None:
    with pytest.raises(ValueError, match="choose one of"):
        ledger_examples(split, 1, difficulty=difficulty)


def test_templates_render_what_the_models_were_trained_on() -> None:
    environment = Environment()
    rendered = {stage: environment.from_string(template) for stage, template in PROMPTS.items()}
    fields = {"story": STORY, "person": "ann"}
    assert rendered["retrieve"].render(**fields) == retrieve_prompt(STORY, "ann")
    assert rendered["read"].render(**fields, retrieve=[1, 3]) == read_prompt([STORY[0], STORY[2]], "ann")
    assert rendered["solve"].render(read="4 0 + 0 5") == "4 0 + 0 5"


def test_every_word_of_a_prompt_is_known() -> None:
    for example in ledger_examples("train", 100):
        words = retrieve_prompt(_story(example), str(example.fields["person"])).split()
        assert all(word in TOKEN_IDS for word in words)
        assert len(words) <= 112


def test_parsers_read_each_stage() -> None:
    assert parse_ids("#1 x2 #3 #7") == (1, 3, 7)
    assert parse_ids("x1 x2") is None
    assert parse_ledger("2 3 + 1 5 - 3 * 0 7") == "2 3 + 1 5 - 3 * 0 7"
    assert parse_number("2 3 ; + 1 5 8 3 ; = 3 8") == "38"
    assert parse_number("2 3 ; + 1 5 8 3") is None
