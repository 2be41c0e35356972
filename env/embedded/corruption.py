"""Wrong answers made from right ones, as the models make them: a slip, and either all else right or all else following.

Samples of the models alone would teach a judge the mistakes of those models on few prompts; these cost nothing, so that
every step of a training sees new prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from env.embedded.corpus import Lesson
from env.embedded.ledger import terms, two_digits, worked_solution
from env.embedded.vocabulary import DIGITS, DROPPED_IDS, KEPT_IDS, PRICES, WORDS

_ANY_WORD_SHARE = 0.1
"""Share of slips into any word at all, as high temperatures make them; the others are into a word of the same kind."""


def corrupted(rng: random.Random, lesson: Lesson) -> str:
    """A wrong answer to a lesson, at least one word away from its target."""
    while True:
        answer = _MISTAKES[lesson.stage](rng, lesson)
        if answer != lesson.target:
            return answer


def noisy(rng: random.Random, lesson: Lesson, share: float) -> tuple[str, str]:
    """An answer with many slips that keep its form, and word by word what should have stood there instead.

    In a worked solution, what should follow a wrong balance is what follows from it; everywhere else slips have no
    consequences. An answer sampled from a model shows where it first goes wrong and nothing more; this shows a judge
    many right and wrong words at once.

    Args:
        rng: Source of chance.
        lesson: What was asked.
        share: Of the digits, marks and signs, how many are replaced.

    Returns:
        The answer, and the right words in their places.
    """
    written, expected = list[str](), list[str]()

    def write(words: str) -> None:
        for word in words.split():
            expected.append(word)
            slips = word not in (";", "=", "*") and rng.random() < share
            written.append(_similar_in_form(rng, word) if slips else word)

    if lesson.stage == "solve":
        _work(lesson.user, write, written)
    else:
        write(lesson.target)
    return " ".join(written), " ".join(expected)


def _work(ledger: str, write: Callable[[str], None], written: Sequence[str]) -> None:
    """Write a worked solution balance by balance, each from the balance that was really written before it."""
    balance = 0
    for sign, count, amount in terms(ledger):
        if not sign:
            write(two_digits(amount))
            balance = int("".join(written[-2:]))
            continue
        product = f"{count} * {two_digits(amount)} {two_digits(count * amount % 100)}"
        write(f"; {sign} {product if count > 1 else two_digits(amount)}")
        balance = (balance + (-1 if sign == "-" else 1) * count * amount) % 100
        write(f"{balance % 10} {balance // 10}")
        balance = int(written[-1] + written[-2])
    write(f"; = {two_digits(balance)}")


def _similar_in_form(rng: random.Random, word: str) -> str:
    """Another digit, mark of the same number or sign."""
    if word in DIGITS:
        return rng.choice([digit for digit in DIGITS if digit != word])
    if word in ("+", "-"):
        return "-" if word == "+" else "+"
    return ("x" if word[0] == "#" else "#") + word[1:]


def _wrong_retrieval(rng: random.Random, lesson: Lesson) -> str:
    """One mark or two turned, or a slip."""
    marks = lesson.target.split()
    if rng.random() < 0.2:
        return _slipped(rng, marks)
    for index in rng.sample(range(len(marks)), min(len(marks), rng.choices((1, 2), (4, 1))[0])):
        marks[index] = ("x" if marks[index][0] == "#" else "#") + marks[index][1:]
    return " ".join(marks)


def _wrong_reading(rng: random.Random, lesson: Lesson) -> str:
    """A term changed, missed, doubled or made up, two terms exchanged, or a slip."""
    parts = _parts(lesson.target)
    index = rng.randrange(len(parts))
    kind = rng.choices(("change", "miss", "invent", "exchange", "slip"), (5, 2, 2, 1, 3))[0]
    if kind == "slip":
        return _slipped(rng, lesson.target.split())
    if kind == "change":
        parts[index] = _changed(rng, parts[index])
    elif kind == "miss" and index:
        del parts[index]
    elif kind == "invent":
        parts.insert(rng.randint(1, len(parts)), _changed(rng, rng.choice(parts[1:] or ["+ 1 0"])))
    elif kind == "exchange" and index > 1:
        parts[index - 1], parts[index] = parts[index], parts[index - 1]
    return " ".join(parts)


def _wrong_solution(rng: random.Random, lesson: Lesson) -> str:
    """A slip, or a wrong operand or balance from which all that follows is worked out correctly."""
    right = lesson.target.split(" ; ")
    kind = rng.choices(("slip", "operand", "balance"), (4, 2, 4))[0]
    if kind == "slip":
        return _slipped(rng, lesson.target.split())
    parts = _parts(lesson.user)
    index = rng.randrange(len(parts))
    parts[index] = _changed(rng, parts[index], sign=kind == "operand")
    wrong = worked_solution(" ".join(parts)).split(" ; ")
    if kind == "balance" and index:
        kept = right[index].split()[:-2]
        wrong[index] = " ".join([*kept, *wrong[index].split()[-2:]])
    return " ; ".join(wrong)


def _parts(ledger: str) -> list[str]:
    """An expression's terms as text, the opening balance first."""
    return [
        f"{sign} {count} * {two_digits(amount)}" if count > 1 else f"{sign} {two_digits(amount)}".strip()
        for sign, count, amount in terms(ledger)
    ]


def _changed(rng: random.Random, part: str, sign: bool = True) -> str:
    """A term with another amount or price, or now and then the other sign."""
    words = part.split()
    if sign and words[0] in "+-" and rng.random() < 0.25:
        words[0] = "-" if words[0] == "+" else "+"
        return " ".join(words)
    if "*" in words and rng.random() < 0.7:
        words[-2:] = two_digits(rng.choice(list(PRICES.values()))).split()
    else:
        words[-rng.randint(1, 2)] = rng.choice(DIGITS)
    return " ".join(words)


def _slipped(rng: random.Random, words: Sequence[str]) -> str:
    """One word replaced, left out or doubled, or the end left off."""
    changed, index = list(words), rng.randrange(len(words))
    kind = rng.choices(("replace", "drop", "double", "end"), (10, 1, 1, 1))[0]
    if kind == "replace":
        changed[index] = _similar(rng, words[index])
    elif kind == "drop":
        del changed[index]
    elif kind == "double":
        changed.insert(index, changed[index])
    else:
        del changed[index:]
    return " ".join(changed)


def _similar(rng: random.Random, word: str) -> str:
    if rng.random() < _ANY_WORD_SHARE:
        return rng.choice(WORDS[5:])
    for kind in (DIGITS, KEPT_IDS, DROPPED_IDS):
        if word in kind:
            return rng.choice(kind)
    return rng.choice(("+", "-", "*", ";", "="))


_MISTAKES = {"retrieve": _wrong_retrieval, "read": _wrong_reading, "solve": _wrong_solution}
