"""Reads the LLM's replies: guidelines and proposals as they were written, never repaired to something near."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from env.allocation import Allocation
from env.errors import ApportionError
from planner.history import Guideline
from planner.proposers._base import Proposal
from planner.proposers.agent.fences import clean
from planner.proposers.agent.recovery import MAX_RAW_CHARS, Broken, find_items
from planner.proposers.agent.schemas import GUIDELINES, PROPOSALS
from planner.space import SearchSpace

MAX_TEXT_CHARS = 400
MAX_GUIDELINES = 12
MAX_STAGES = 64
MAX_NAME_CHARS = 200

_WHOLE = re.compile(r"\s*[+-]?\d{1,9}(\.0{1,9})?\s*")


def read_proposals(reply: str, count: int) -> tuple[Proposal, ...] | None:
    """The first `count` proposals of a reply; None where it holds none at all.

    An item that cannot be read is a proposal without allocation that keeps its text and says what is wrong.
    """
    items = find_items(reply, PROPOSALS, "allocation")
    return None if not items else tuple(_proposal(item) for item in items[:count])


def read_guidelines(reply: str, space: SearchSpace, round_: int) -> tuple[Guideline, ...] | None:
    """The guidelines of a reply, bad items and bad fields left out; None where no item is usable."""
    items = find_items(reply, GUIDELINES, "text") or []
    read = [_guideline(item, space, round_) for item in items]
    return tuple(g for g in read if g is not None)[:MAX_GUIDELINES] or None


def _proposal(item: object) -> Proposal:
    if isinstance(item, Broken):
        return Proposal(None, "agent", raw=clean(item.raw), problem=item.problem)
    raw = _raw(item)
    if not isinstance(item, dict):
        return Proposal(None, "agent", raw=raw, problem="a proposal is an object with `allocation`")
    reason = _text(item.get("reason"))
    expected = _score(item.get("expected_score"))
    if "allocation" not in item:
        return Proposal(None, "agent", reason, expected, raw, "the proposal has no `allocation`")
    try:
        return Proposal(read_allocation(item["allocation"]), "agent", reason, expected)
    except ApportionError as error:
        return Proposal(None, "agent", reason, expected, raw, clean(str(error))[:MAX_TEXT_CHARS])


def _raw(item: object) -> str:
    try:
        return clean(json.dumps(item, ensure_ascii=False)[:MAX_RAW_CHARS])
    except (ValueError, RecursionError):
        return "(nested too deeply to write out)"


def read_allocation(value: object) -> Allocation:
    """An allocation as written; whole numbers may be written as ``"8"`` or ``8.0``, settings as they are shown.

    Raises:
        ApportionError: it is none; the message says what is wrong.
    """
    if not isinstance(value, Mapping) or not value:
        raise ApportionError("an allocation is an object of stages, each {model, strategy, samples}")
    if len(value) > MAX_STAGES:
        raise ApportionError(f"an allocation of {len(value)} stages")
    settings: dict[str, object] = {}
    for stage, raw in value.items():
        name = clean(str(stage))[:MAX_NAME_CHARS]
        parts = raw.split("/") if isinstance(raw, str) else []
        if len(parts) == 3:
            raw = {"model": parts[0], "strategy": parts[1], "samples": parts[2]}
        if isinstance(raw, Mapping):
            knobs = _knobs(raw.get("knobs"))
            raw = {field: _plain(field, raw.get(field)) for field in ("model", "strategy", "samples")}
            raw["knobs"] = knobs
        settings[name] = raw
    return Allocation.from_json(settings)


def _plain(field: str, value: object) -> object:
    if field != "samples":
        return clean(value)[:MAX_NAME_CHARS] if isinstance(value, str) else value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(float(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return int(value)
    # A database's integer holds no more, and no stage may take as many.
    return None if isinstance(value, int) and abs(value) >= 10**9 else value


def _knobs(value: object) -> object:
    """Knobs as written, without what a database cannot hold; such a knob counts as left out."""
    if not isinstance(value, Mapping):
        return value
    knobs: dict[str, object] = {}
    for name, choice in list(value.items())[:MAX_STAGES]:
        if isinstance(choice, str):
            choice = clean(choice)[:MAX_NAME_CHARS]
        elif isinstance(choice, int | float) and not abs(choice) < 1e9:
            choice = None
        knobs[clean(str(name))[:MAX_NAME_CHARS]] = choice
    return knobs


def _score(value: object) -> float | None:
    """An expected score; metrics lie in 0..1, anything else says nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _guideline(item: object, space: SearchSpace, round_: int) -> Guideline | None:
    if not isinstance(item, dict):
        return None
    insight, stage, text = item.get("insight"), item.get("stage"), _text(item.get("text"))
    if isinstance(insight, str) and insight in ("0", "1", "2", "3"):
        insight = int(insight)
    if isinstance(insight, bool) or not isinstance(insight, int) or not 0 <= insight <= 3 or not text:
        return None
    stages = {s.name: s for s in space.pipeline.stages}
    if stage is not None and (not isinstance(stage, str) or stage not in stages):
        return None
    models = stages[stage].models if stage is not None else tuple(space.pipeline.models)
    return Guideline(round_, insight, text, stage, _structured(item.get("structured"), models, tuple(stages)))


def _structured(value: object, models: tuple[str, ...], stages: tuple[str, ...]) -> dict[str, object]:
    """The known fields with sensible values."""
    if not isinstance(value, dict):
        return {}
    allowed: dict[str, tuple[str, ...]] = {
        "preferred_model": models,
        "direction": ("up", "down", "hold"),
        "shift_budget_from": stages,
        "shift_budget_to": stages,
    }
    found: dict[str, object] = {
        field: value[field]
        for field, names in allowed.items()
        if isinstance(value.get(field), str) and value[field] in names
    }
    plateau = _plain("samples", value.get("plateau"))
    if isinstance(plateau, int) and not isinstance(plateau, bool) and 1 <= plateau <= 1000:
        found["plateau"] = plateau
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    text = " ".join(clean(value[: 4 * MAX_TEXT_CHARS]).split())
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
