"""Reads the answers of draws: out of their texts, or out of the bank where the texts are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from env.backends._base import Draw
from env.bank import AnswerBank, PromptKey, SampleBank, parser_key
from env.spec.stage import ParserSpec
from env.tasks.parsers import canonical, parser_of


@dataclass
class Reading:
    """Answers of some prompts' draws."""

    answers: dict[PromptKey, tuple[str | None, ...]] = field(default_factory=dict)
    """Canonical answers in the order of the draws; None where the parser finds none."""

    unreadable: dict[PromptKey, str] = field(default_factory=dict)
    """Prompts whose texts are needed and gone, and what to do; they have no answers."""


class Reader:
    """Reads one stage's draws and lets the bank keep what it read. Blocking, as the bank is."""

    def __init__(self, bank: SampleBank, parser: ParserSpec, texts_needed: bool = False) -> None:
        """Bind to a bank.

        Args:
            bank: where the draws come from; one that keeps no answers is fine.
            parser: how the stage's answers are read.
            texts_needed: the texts are used beyond the parser, as by a verifier: they must be there, and stay.
        """
        self._bank = bank if isinstance(bank, AnswerBank) else None
        self._parse = parser_of(parser)
        self._parser = parser_key(parser)
        self._texts_needed = texts_needed

    def read(self, draws: Mapping[PromptKey, Sequence[Draw]]) -> Reading:
        """Read the draws the bank holds for some prompts.

        Answers are kept only after all draws given were read, so a crash in between costs reading them again.

        Raises:
            ApportionError: the bank failed.
        """
        known = self._bank.answers(self._parser, list(draws)) if self._bank else {}
        reading = Reading()
        fresh: dict[PromptKey, dict[int, str | None]] = {}
        for key, batch in draws.items():
            kept = known.get(key, {})
            if any(d.text_dropped and (self._texts_needed or d.index not in kept) for d in batch):
                reading.unreadable[key] = self._explained()
                continue
            new = {d.index: canonical(self._parse(d.text)) for d in batch if d.index not in kept}
            reading.answers[key] = tuple(kept[d.index] if d.index in kept else new[d.index] for d in batch)
            # Of a prompt whose answers were all known from others with the same texts, the bank still has to learn
            # that it was read, or its texts would never go.
            if any(d.text and (d.index in new or not self._texts_needed) for d in batch):
                fresh[key] = new
        if self._bank and fresh:
            self._bank.keep_answers(self._parser, fresh, self._texts_needed)
        return reading

    def _explained(self) -> str:
        why = "a verifier has to see them" if self._texts_needed else "this parser has not read them before"
        return (
            f"the archive no longer keeps the texts of these draws and {why}; take another seed, so that they are "
            "drawn anew, or set the archive's text policy to full before such studies"
        )
