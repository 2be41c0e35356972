"""The ledger task: a story of several people's money, asked about one of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from env.embedded.vocabulary import (
    ALIAS_WEIGHTS,
    ALIASES,
    MOST_BOUGHT,
    PEOPLE,
    PRICE_WEIGHTS,
    PRICES,
)
from env.tasks.example import Example

_PAIRS = tuple(PRICES)
_SPLIT_OF_BUCKET = ("test", "search") + ("train",) * 8
SPLITS = ("train", "search", "test")


@dataclass(frozen=True)
class Difficulty:
    """How hard a story is; ranges are inclusive."""

    people: int
    """People in the story, the one asked about included."""

    operations: tuple[int, int]
    """Changes of the asked person's balance after the start."""

    distractors: tuple[int, int]
    """Sentences that say nothing about the asked person."""

    alias_share: float
    """Probability that a mention is an alias ("the baker") and not a name."""


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(people=2, operations=(3, 4), distractors=(2, 3), alias_share=0.2),
    "medium": Difficulty(people=3, operations=(4, 6), distractors=(3, 4), alias_share=0.4),
    "hard": Difficulty(people=4, operations=(6, 7), distractors=(3, 4), alias_share=0.5),
}
MIXED = "mixed"
"""Name of the mix: the three levels in equal shares."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of a story and what it does to whose balance."""

    text: str
    effects: Mapping[str, str]
    """Ledger term by person: an opening balance such as ``2 3``, or a change such as ``- 3 * 0 7``."""

    opens: bool = False
    """Whether the sentence states an opening balance."""


@dataclass(frozen=True)
class Story:
    """Sentences in order, and the person asked about."""

    sentences: tuple[Sentence, ...]
    person: str
    level: str = field(default="custom")

    @property
    def relevant(self) -> list[int]:
        """Numbers, from 1, of the sentences that concern the person."""
        return [number for number, sentence in enumerate(self.sentences, 1) if self.person in sentence.effects]

    @property
    def digest(self) -> str:
        """Hex digest of the content; decides the split."""
        content = "\n".join([*(sentence.text for sentence in self.sentences), self.person])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def split(self) -> str:
        """The one split that may hold this story."""
        return _SPLIT_OF_BUCKET[int(self.digest[:8], 16) % len(_SPLIT_OF_BUCKET)]


def two_digits(number: int) -> str:
    """A number from 0 to 99 as two words, ``7`` as ``0 7``."""
    return " ".join(f"{number:02d}")


def expression(sentences: Sequence[Sentence], person: str) -> str:
    """The ledger expression that the sentences give for the person; a missing opening balance counts as ``0 0``."""
    opening = [sentence.effects[person] for sentence in sentences if sentence.opens and person in sentence.effects]
    changes = [sentence.effects[person] for sentence in sentences if not sentence.opens and person in sentence.effects]
    return " ".join([*(opening or ["0 0"]), *changes])


def terms(ledger: str) -> list[tuple[str, int, int]]:
    """Split an expression into ``(sign, count, amount)``; the opening balance has the sign ``""``.

    Raises:
        ValueError: The text is not a ledger expression.
    """
    words, found = ledger.split(), list[tuple[str, int, int]]()
    position, sign = 0, ""
    while position < len(words):
        if found:
            sign, position = words[position], position + 1
        count = 1
        if sign and words[position + 1 : position + 2] == ["*"]:
            count, position = int(words[position]), position + 2
        tens, units = words[position : position + 2]
        if (found and sign not in ("+", "-")) or not (tens + units).isdigit() or len(tens + units) != 2:
            raise ValueError(f"not a ledger expression: {ledger!r}")
        found.append((sign, count, int(tens + units)))
        position += 2
    return found


def balances(ledger: str) -> list[int]:
    """Running balances of an expression, modulo 100, the opening balance first."""
    running = list[int]()
    for sign, count, amount in terms(ledger):
        before = running[-1] if running else 0
        running.append((before + (-1 if sign == "-" else 1) * count * amount) % 100)
    return running


def worked_solution(ledger: str) -> str:
    """What the solve stage should write: each change copied, its product, and the balance with units first.

    ``2 3 + 1 5 - 3 * 0 7`` gives ``2 3 ; + 1 5 8 3 ; - 3 * 0 7 2 1 7 1 ; = 1 7``.
    """
    running, parts = balances(ledger), list[str]()
    for (sign, count, amount), balance in zip(terms(ledger), running, strict=True):
        if not sign:
            parts.append(two_digits(amount))
            continue
        product = f"{count} * {two_digits(amount)} {two_digits(count * amount % 100)}"
        operand = product if count > 1 else two_digits(amount)
        parts.append(f"{sign} {operand} {balance % 10} {balance // 10}")
    return " ; ".join([*parts, f"= {two_digits(running[-1])}"])


def make_story(rng: random.Random, difficulty: Difficulty, level: str = "custom") -> Story:
    """Draw a story whose balance stays within 0..99 and ends at 10 or more."""
    while True:
        person, *others = rng.sample(PEOPLE, difficulty.people)
        own = _own_sentences(rng, person, others, difficulty)
        if own is not None:
            break
    rest = _distractors(rng, others, rng.randint(*difficulty.distractors), difficulty.alias_share)
    order = [True] * len(own) + [False] * len(rest)
    rng.shuffle(order)
    merged = tuple(own.pop(0) if is_own else rest.pop(0) for is_own in order)
    return Story(merged, person, level)


def stories(split: str, rng: random.Random, difficulty: str = MIXED) -> Iterator[Story]:
    """Endless stories of one split; ``difficulty`` is a level of `DIFFICULTIES` or the mix.

    Raises:
        ValueError: The split or the difficulty is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if difficulty != MIXED and difficulty not in DIFFICULTIES:
        raise ValueError(f"unknown difficulty {difficulty!r}; choose one of {', '.join(DIFFICULTIES)}, {MIXED}")
    levels = tuple(DIFFICULTIES) if difficulty == MIXED else (difficulty,)
    while True:
        level = rng.choice(levels)
        story = make_story(rng, DIFFICULTIES[level], level)
        if story.split == split:
            yield story


def ledger_examples(split: str, count: int, seed: int = 0, difficulty: str = MIXED) -> list[Example]:
    """Draw distinct scored examples of one split, the same ones for the same arguments.

    Args:
        split: ``train`` (what the models were trained on), ``search`` or ``test``; no story is in two of them.
        count: How many examples.
        seed: Another seed gives other stories of the same split.
        difficulty: ``easy``, ``medium``, ``hard`` or ``mixed``.

    Raises:
        ValueError: The split or the difficulty is unknown.
    """
    rng = random.Random(f"ledger {split} {seed} {difficulty}")
    found = dict[str, Example]()
    source = stories(split, rng, difficulty)
    while len(found) < count:
        story = next(source)
        example = _example(story)
        found.setdefault(example.id, example)
    return list(found.values())


def _example(story: Story) -> Example:
    ledger = expression(story.sentences, story.person)
    answer = f"{balances(ledger)[-1]:02d}"
    return Example(
        id=f"ledger-{story.digest[:16]}",
        fields={
            "story": [sentence.text for sentence in story.sentences],
            "person": story.person,
            "level": story.level,
        },
        answers=(answer,),
        stage_gold={"retrieve": list(story.relevant), "read": ledger, "solve": answer},
    )


def _mention(rng: random.Random, person: str, alias_share: float) -> str:
    if rng.random() >= alias_share:
        return person
    return rng.choices(ALIASES[person], ALIAS_WEIGHTS)[0]


def _purchase(rng: random.Random) -> tuple[int, str, str]:
    colour, item = rng.choices(_PAIRS, PRICE_WEIGHTS)[0]
    return rng.randint(2, MOST_BOUGHT), colour, item


def _own_sentences(
    rng: random.Random, person: str, others: Sequence[str], difficulty: Difficulty
) -> list[Sentence] | None:
    """The asked person's sentences, or None where chance led to a balance out of range."""
    balance = rng.randint(20, 90)
    named = _mention(rng, person, difficulty.alias_share)
    found = [Sentence(f"{named} starts with {two_digits(balance)} .", {person: two_digits(balance)}, opens=True)]
    for _ in range(rng.randint(*difficulty.operations)):
        kind = rng.choices(("earns", "spends", "buys", "gives", "gets"), (2, 1, 4, 1, 2))[0]
        if kind == "buys":
            bought = _purchase(rng)
            change = -bought[0] * PRICES[bought[1], bought[2]]
            sentence = _buys(rng, person, bought, difficulty.alias_share)
        else:
            gains = kind in ("earns", "gets")
            most = min(60, 99 - balance if gains else balance)
            if most < 2:
                return None
            amount = rng.randint(2, most)
            change = amount if gains else -amount
            if kind in ("earns", "spends"):
                sentence = _moves(rng, person, kind, amount, difficulty.alias_share)
            else:
                other = rng.choice(others)
                giver, taker = (other, person) if kind == "gets" else (person, other)
                sentence = _gives(rng, giver, taker, amount, difficulty.alias_share)
        balance += change
        if not 0 <= balance <= 99:
            return None
        found.append(sentence)
    return found if balance >= 10 else None


def _distractors(rng: random.Random, others: Sequence[str], count: int, alias_share: float) -> list[Sentence]:
    found = list[Sentence]()
    opened = set[str]()
    for _ in range(count):
        person = rng.choice(others)
        kinds = ["earns", "spends", "buys", "buys"] + ["gives"] * (len(others) > 1)
        kind = rng.choice(kinds)
        amount = rng.randint(2, 60)
        if person not in opened and rng.random() < 0.5:
            opened.add(person)
            named, start = _mention(rng, person, alias_share), two_digits(rng.randint(20, 90))
            found.append(Sentence(f"{named} starts with {start} .", {person: start}, opens=True))
            continue
        opened.add(person)
        if kind == "buys":
            found.append(_buys(rng, person, _purchase(rng), alias_share))
        elif kind == "gives":
            taker = rng.choice([other for other in others if other != person])
            found.append(_gives(rng, person, taker, amount, alias_share))
        else:
            found.append(_moves(rng, person, kind, amount, alias_share))
    return found


def _moves(rng: random.Random, person: str, verb: str, amount: int, alias_share: float) -> Sentence:
    sign = "+" if verb == "earns" else "-"
    number = two_digits(amount)
    return Sentence(f"{_mention(rng, person, alias_share)} {verb} {number} .", {person: f"{sign} {number}"})


def _buys(rng: random.Random, person: str, bought: tuple[int, str, str], alias_share: float) -> Sentence:
    count, colour, item = bought
    text = f"{_mention(rng, person, alias_share)} buys {count} {colour} {item} ."
    return Sentence(text, {person: f"- {count} * {two_digits(PRICES[colour, item])}"})


def _gives(rng: random.Random, giver: str, taker: str, amount: int, alias_share: float) -> Sentence:
    number = two_digits(amount)
    text = f"{_mention(rng, giver, alias_share)} gives {number} to {_mention(rng, taker, alias_share)} ."
    return Sentence(text, {giver: f"- {number}", taker: f"+ {number}"})
