"""Reads request bodies and form texts into plain data, and refuses what no archive could keep."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import yaml

from env.spec import Fault, SpecError, StudySpec
from planner.check import validated_spec

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_VALUES = 500_000
"""Values in one spec, aliases of YAML counted as often as they are used: a small text can unfold into billions."""

MAX_DEPTH = 60


def read_spec(body: bytes, yaml_body: bool) -> Any:
    """A spec's plain data from a request body.

    Args:
        body: UTF-8 text.
        yaml_body: whether it is YAML; else JSON.

    Raises:
        SpecError: not UTF-8, not parseable, too large once unfolded, or with values that are no JSON.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError([Fault("", f"the body is not UTF-8: {error.reason} at byte {error.start}")]) from error
    raw = read_yaml(text) if yaml_body else _read_json(text)
    check_plain(raw)
    return raw


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser is ten times faster; it needs the check of depth below, as its recursion knows no limit."""


class _Loader(_Base):  # type: ignore[misc]
    """Safe loading that stops where merge keys multiply a mapping's entries."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES // 10:
            raise yaml.YAMLError("merge keys unfold into too many entries")


def read_yaml(text: str, path: str = "") -> Any:
    """Data written in YAML.

    Raises:
        SpecError: it does not parse; the fault has the given path.
    """
    try:
        _check_depth(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError([Fault(path, f"not YAML: {error.problem or error.context}{place}")]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).replace("\n", " ")
        raise SpecError([Fault(path, f"not YAML: {reason}")]) from error


def usable_spec(raw: Any) -> StudySpec:
    """A completely checked spec whose every value the archive can hold.

    Raises:
        SpecError: with every fault found.
    """
    spec = validated_spec(raw)
    # A text such as "inf" has become a number only now.
    check_plain(spec.model_dump(mode="json"))
    return spec


def check_plain(value: Any, path: str = "") -> None:
    """Refuse data that JSON, and with it the archive, cannot hold.

    Raises:
        SpecError: with the first such value.
    """
    seen = 0
    stack: list[tuple[Any, str, int]] = [(value, path, 0)]
    while stack:
        item, place, depth = stack.pop()
        seen += 1
        if seen > MAX_VALUES:
            _refuse(path, f"more than {MAX_VALUES:,} values once aliases are unfolded")
        if depth > MAX_DEPTH:
            _refuse(place, "nested too deeply")
        if isinstance(item, dict):
            for key, inner in item.items():
                _check_leaf(key, place)
                stack.append((inner, f"{place}.{key}" if place else str(key), depth + 1))
        elif isinstance(item, list):
            stack.extend((inner, f"{place}[{i}]", depth + 1) for i, inner in enumerate(item))
        else:
            _check_leaf(item, place)


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")


def _check_leaf(item: Any, place: str) -> None:
    if isinstance(item, str):
        if "\x00" in item or not _encodable(item):
            _refuse(place, "holds characters that cannot be stored (NUL or half a surrogate pair)")
    elif isinstance(item, float) and not math.isfinite(item):
        _refuse(place, "must be a finite number")
    elif item is not None and not isinstance(item, bool | int | float):
        _refuse(place, f"a {type(item).__name__} is no JSON value; write it as text, in quotes")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SpecError([Fault("", f"not JSON: {reason}")]) from error


def _refuse(path: str, message: str) -> NoReturn:
    raise SpecError([Fault(path, message)])
