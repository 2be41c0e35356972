"""Search over steps: partial answers that a process reward model scores and that are continued step by step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from env.backends._base import Draw, Message
from env.calls import Call
from env.strategies._base import (
    Ask,
    Candidate,
    Procedure,
    Reply,
    Request,
    StagePlan,
    StageRun,
    Strategy,
    single_draw,
)

MAX_STEPS = 64


@dataclass(frozen=True)
class Node:
    """A partial answer, or a whole one."""

    text: str
    score: float
    """The process reward model's, of everything so far."""

    tokens: int
    """Generated so far."""

    finished: bool
    root: int = 0
    """Which first step it grew from."""


class TreeStrategy(Strategy):
    """Grows at most `samples` partial answers side by side, one step at a time, until all are whole.

    A step ends with the stage's `step_end`, which stays part of it. After every step each new partial answer is scored
    by the verifier, and `grow` says how many continuations each gets. Identical partial answers are one.
    """

    requires = frozenset({"verifier", "steps"})

    @abstractmethod
    def grow(self, plan: StagePlan, nodes: Sequence[Node], slots: int) -> list[tuple[Node, int]]:
        """Continuations of each unfinished node, at most `slots` in all.

        Args:
            plan: the stage and its setting.
            nodes: every living node, finished ones included, in the order they were made.
            slots: samples that finished nodes do not take up.
        """

    @abstractmethod
    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """The answer of the finished nodes."""

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        nodes = yield from self._expand(run, [(Node("", 0.0, 0, False), run.samples)])
        nodes = [replace(node, root=place) for place, node in enumerate(nodes)]
        for _ in range(MAX_STEPS):
            finished = [node for node in nodes if node.finished]
            wanted = self.grow(run, nodes, run.samples - len(finished))
            wanted = [(node, count) for node, count in wanted if count > 0]
            if not wanted:
                break
            nodes = finished + (yield from self._expand(run, wanted))
        whole = [node for node in nodes if node.finished] or nodes
        return self.choose([Candidate(run.parse(node.text), node.score, tokens=node.tokens) for node in whole])

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The prompt once and every slot's tokens, drawn and judged: finished parts stay in the prefix cache.

        ``N`` slots generate at most ``N`` outputs; the verifier reads the prompt once and every generated token.
        """
        drawn = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if plan.samples == 1:
            return (drawn,)
        return (drawn, Call(plan.verifier, plan.prompt + plan.samples * plan.output, 0.0, 0))

    def most_draws(self, plan: StagePlan) -> int:
        """Every step is a draw: at most one a slot for each of `MAX_STEPS` steps, and no more than tokens."""
        return plan.samples * int(min(MAX_STEPS, plan.output)) if plan.samples > 1 else 1

    def _expand(
        self, run: StageRun, wanted: Sequence[tuple[Node, int]]
    ) -> Generator[Sequence[Request], Sequence[Reply], list[Node]]:
        """Draw a step for each wanted continuation and score what it leads to."""
        assert run.stage.step_end is not None
        merged: dict[str, tuple[Node, int]] = {}
        for node, count in wanted:
            known = merged.get(node.text)
            merged[node.text] = (node, count + (known[1] if known else 0))
        replies = yield [self._ask(run, node, count) for node, count in merged.values()]
        grown: list[tuple[Node, Draw]] = []
        for (node, _), draws in zip(merged.values(), replies, strict=True):
            grown += [(node, draw) for draw in draws]
        texts = {node.text + draw.text: (node, draw) for node, draw in grown}
        finished = {text: self._finished(run, node, draw) for text, (node, draw) in texts.items()}
        # The verifier, too, reads what all of them begin with once.
        first = next(iter(texts)) if not wanted[0][0].text else None
        judged = yield [
            run.judge(text, not finished[text], draw.output_tokens + (draw.prompt_tokens if text == first else 0))
            for text, (_, draw) in texts.items()
        ]
        scores = {text: reply[0].score or 0.0 for text, reply in zip(texts, judged, strict=True)}
        return [
            Node(
                node.text + draw.text,
                scores[node.text + draw.text],
                node.tokens + draw.output_tokens,
                finished[node.text + draw.text],
                node.root,
            )
            for node, draw in grown
        ]

    @staticmethod
    def _ask(run: StageRun, node: Node, count: int) -> Ask:
        assert run.stage.step_end is not None
        messages = (*run.messages, Message("assistant", node.text)) if node.text else run.messages
        sampling = replace(
            run.sampling,
            stop=(run.stage.step_end, *run.sampling.stop),
            include_stop=True,
            max_tokens=max(1, run.sampling.max_tokens - node.tokens),
        )
        return Ask(run.setting.model, messages, sampling, count, cached=bool(node.text))

    @staticmethod
    def _finished(run: StageRun, node: Node, draw: Draw) -> bool:
        """Whole: the model ended it, or there is no room for another step."""
        assert run.stage.step_end is not None
        stepped = draw.finish_reason == "stop" and draw.text.endswith(run.stage.step_end)
        return not stepped or node.tokens + draw.output_tokens >= run.sampling.max_tokens
