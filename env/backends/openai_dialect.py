"""Which part of the OpenAI protocol, and of vLLM's additions to it, a server is asked in, and what it lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from env.backends._base import Message, Sampling, continues
from env.errors import BackendError

if TYPE_CHECKING:
    from openai import APIStatusError

Api = Literal["chat", "completions", "classify", "pooling", "score", "reward"]
Rewards = Literal["outcome", "process"]
StepRule = Literal["last", "min", "mean", "product"]
Body = dict[str, Any]

CONTINUE_FIELDS: Mapping[str, bool] = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM and the torch engine's server are told that the last message is to be continued."""

INCLUDE_STOP = "include_stop_str_in_output"

OLDER_PAIR = ("text_1", "text_2")

_TASKS: Mapping[Rewards, str] = {"outcome": "classify", "process": "token_classify"}
"""Pooling tasks of vLLM by what its reward models judge."""

_DISPENSABLE = ("logprobs", "seed", "stop")
"""Fields that a server may refuse without the draws losing their meaning: stop strings are then cut here."""

_AT_DEFAULT: Mapping[str, object] = {"temperature": 1.0, "top_p": 1.0, "use_activation": True}
"""Fields that may be left out where they have the value that servers take in their absence."""


@dataclass(frozen=True)
class Dialect:
    """How one model of one server is asked."""

    api: Api = "chat"
    """``chat`` and ``completions`` draw. The others score, at vLLM's endpoints for verifiers: ``classify``, ``pooling``
    (the server's own task), ``reward`` (``/pooling`` with the task that fits `rewards`), and ``score``, where a
    cross-encoder reads what was asked and the reply as two texts."""

    label: int | str | None = None
    """Of a classifier with several labels: the one whose probability is the score, by place or by name."""

    scores: Literal["probability", "logit"] = "probability"
    """What the server's numbers are. Logits become probabilities here: one by the sigmoid, several by softmax."""

    continues: bool | None = None
    """Whether the server continues a last message of the assistant's; None: it is found out when first needed."""

    missing_usage: Literal["fail", "estimate"] = "fail"
    """Where a reply does not say how many tokens it used: a failure, or one token for every four bytes of UTF-8."""

    rewards: Rewards = "process"
    """What a reward model judges: the reply as a whole, or each step (each token) of it."""

    steps: StepRule = "last"
    """Of several rows, as process reward models give one a step: how their scores make one."""

    @property
    def draws(self) -> bool:
        """Whether this model is asked for text."""
        return self.api in ("chat", "completions")

    @property
    def score_path(self) -> str:
        """Where a verifier is asked, below the server's root."""
        return "/pooling" if self.api == "reward" else f"/{self.api}"

    def revision(self, stated: str) -> str:
        """The revision of the weights, with what else decides draws and scores and is no part of their requests."""
        parts = [stated, "" if self.api == "chat" else f"api={self.api}"]
        if not self.draws:
            parts += ["" if self.label is None else f"label={self.label}", f"scores={self.scores}"]
            parts += [f"rewards={self.rewards}"] if self.api == "reward" else []
            parts += ["" if self.steps == "last" else f"steps={self.steps}"]
        return ";".join(part for part in parts if part)


@dataclass
class Habits:
    """What this server was found not to serve; learnt from its refusals and kept for later calls."""

    without: set[str] = field(default_factory=set)
    limit_field: str = "max_tokens"
    single: bool = False
    """It refuses or ignores ``n``."""

    below_v1: bool = False
    """It serves the verifier's endpoints below ``/v1`` rather than beside it."""

    pair: tuple[str, str] = ("queries", "documents")
    """Fields of ``/score``; older servers know them as ``text_1`` and ``text_2``."""

    def learn(self, error: APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal of what was sent taught something that makes another attempt worth while.

        Raises:
            BackendError: what is refused cannot be done without.
        """
        if error.status_code not in (400, 422):
            return False
        if self.pair[0] in sent and self.pair != OLDER_PAIR and OLDER_PAIR[0] in error.message:
            self.pair = OLDER_PAIR
            return True
        if "max_tokens" in sent and _names(error, "max_completion_tokens"):
            self.limit_field = "max_completion_tokens"
            return True
        _require_served(error, sent)
        refused = [name for name in _DISPENSABLE if name in sent and _names(error, name)]
        refused += [name for name, value in _AT_DEFAULT.items() if sent.get(name) == value and _names(error, name)]
        self.without.update(refused)
        return bool(refused)


def _require_served(error: APIStatusError, sent: Mapping[str, Any]) -> None:
    for name in CONTINUE_FIELDS:
        if name in sent and _names(error, name):
            raise BackendError(
                f"the server cannot continue a partial answer: it refuses {name} ({error.message}); serve the model "
                "with vLLM or the torch engine, or use a strategy that draws whole answers"
            )
    if INCLUDE_STOP in sent and _names(error, INCLUDE_STOP):
        raise BackendError(
            f"the server cannot keep the stop string of a step: it refuses {INCLUDE_STOP} ({error.message}); serve the "
            "model with vLLM or the torch engine"
        )
    for name, default in _AT_DEFAULT.items():
        if name in sent and sent[name] != default and _names(error, name):
            raise BackendError(
                f"the server refuses {name} = {sent[name]} ({error.message}); use a value that the model serves "
                f"(some, such as reasoning models, serve {default} only)"
            )


def _names(error: APIStatusError, name: str) -> bool:
    """Whether an error is about a field; common words count only where they are marked as a name."""
    if error.param == name:
        return True
    if name == "stop":
        return re.search(r"""['"`]stop['"`]""", error.message) is not None
    return re.search(rf"(?<!\w){name.removesuffix('s')}", error.message) is not None


def draw_path(dialect: Dialect) -> str:
    """Where draws are asked for, below the base URL."""
    return "/chat/completions" if dialect.api == "chat" else "/completions"


def draw_body(
    dialect: Dialect, habits: Habits, model: str, messages: Sequence[Message], sampling: Sampling, seed: int, n: int
) -> Body:
    """The request for ``n`` choices of a prompt."""
    body: Body = {"model": model}
    if dialect.api == "chat":
        body["messages"] = _plain(messages)
        body["logprobs"] = True
        if continues(messages):
            body.update(CONTINUE_FIELDS)
    else:
        body["prompt"] = plain_prompt(messages)
        body["logprobs"] = 1
    limit = habits.limit_field if dialect.api == "chat" else "max_tokens"
    body |= {"temperature": sampling.temperature, "top_p": sampling.top_p, limit: sampling.max_tokens, "seed": seed}
    if n > 1:
        body["n"] = n
    if sampling.stop:
        body["stop"] = list(sampling.stop)
        if sampling.include_stop and "stop" not in habits.without:
            body[INCLUDE_STOP] = True
    return _without(body, habits)


def score_body(dialect: Dialect, habits: Habits, model: str, messages: Sequence[Message], partial: bool) -> Body:
    """The request for a verifier's numbers on a conversation.

    Raises:
        BackendError: a cross-encoder is to judge a partial answer, or a reply to nothing.
    """
    body: Body = {"model": model, "use_activation": dialect.scores == "probability"}
    if dialect.api == "score":
        return _without(body | _pair(habits, messages, partial), habits)
    body["messages"] = _plain(messages)
    if dialect.api == "reward":
        body["task"] = _TASKS[dialect.rewards]
    if partial:
        body.update(CONTINUE_FIELDS)
    return _without(body, habits)


def _pair(habits: Habits, messages: Sequence[Message], partial: bool) -> Body:
    """What was asked and the reply, as the two texts of a cross-encoder."""
    if partial:
        raise BackendError(
            "a cross-encoder (api: score) reads whole texts and cannot be told that a reply is cut off; take a "
            "verifier with api: classify, pooling or reward for strategies that search step by step"
        )
    asked = plain_prompt(messages[:-1])
    if not asked:
        raise BackendError("a cross-encoder compares a reply with what was asked, and nothing was asked")
    return {habits.pair[0]: asked, habits.pair[1]: messages[-1].content}


def _without(body: Body, habits: Habits) -> Body:
    """What the server takes; values that mean something are sent all the same, for its refusal to tell."""
    for name in habits.without:
        if name not in _AT_DEFAULT or body.get(name) == _AT_DEFAULT[name]:
            body.pop(name, None)
    return body


def plain_prompt(messages: Sequence[Message]) -> str:
    """A conversation as one text for a model without a chat template.

    Messages are paragraphs, a blank line between them; an answer follows what it answers directly, so that the prompt
    of a fresh answer, the answer's text, and the prompt that continues it are each the beginning of the next.
    """
    text = ""
    for message in messages:
        text += message.content if not text or message.role == "assistant" else f"\n\n{message.content}"
    return text


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
