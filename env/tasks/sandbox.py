"""The sandbox of prompt templates: data in, text out, no code, and bounded work.

Jinja2's own sandbox keeps a template away from Python's insides. It does not keep it from eating the machine: a loop
in a loop, a long repetition, a huge power. Here every step is counted and every text that grows is measured first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import StrictUndefined, Template, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE_CHARS = 200_000
MAX_CHARS = 4_000_000
"""Of any text a template makes, and of all it writes: far above any model's context."""

MAX_STEPS = 100_000
"""Rounds of loops, calls and calculations of one rendering."""

MAX_RANGE = 10_000
MAX_BITS = 4096
"""Of a whole number."""

_WIDTH = re.compile(r"\d{5,}|\*")
_left: ContextVar[list[int] | None] = ContextVar("apportion_template_work", default=None)


@contextmanager
def bounded() -> Iterator[None]:
    """One rendering's worth of work."""
    token = _left.set([MAX_STEPS, MAX_CHARS])
    try:
        yield
    finally:
        _left.reset(token)


def spend(chars: int) -> None:
    """One step that writes some characters.

    Raises:
        SecurityError: the template works or writes too much.
    """
    left = _left.get()
    if chars > MAX_CHARS:
        raise SecurityError(f"a text of more than {MAX_CHARS:,} characters")
    if left is None:  # while it is compiled, constants are calculated
        return
    left[0] -= 1
    left[1] -= chars
    if left[0] < 0:
        raise SecurityError(f"more than {MAX_STEPS:,} steps")
    if left[1] < 0:
        raise SecurityError(f"more than {MAX_CHARS:,} characters")


class _Code(CodeGenerator):
    """Joins texts by way of the environment, which measures them."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all prompts: unknown names are errors, work is bounded."""

    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "*", "**", "%", "//", "/", "-"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
        self.globals = {"range": _range}
        self.filters = {name: _guarded(name, call) for name, call in self.filters.items()}
        self.filters["_counted"] = _counted

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateSyntaxError(f"longer than {MAX_SOURCE_CHARS:,} characters", 1)
        tree = super()._parse(source, name, filename)
        for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            if (node := tree.find(kind)) is not None:
                raise TemplateSyntaxError("a prompt cannot load other templates", node.lineno)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise TemplateSyntaxError("recursive loops are not allowed", loop.lineno)
        return tree

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Python for a template, each round of its loops counted."""
        for loop in source.find_all(nodes.For):
            size = nodes.Const(_written(loop))
            loop.iter = nodes.Filter(loop.iter, "_counted", [size], [], None, None, lineno=loop.lineno)
            loop.iter.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    def joined(self, parts: Iterable[object]) -> str:
        """The parts as one text (the operator ``~``)."""
        texts = [str(part) for part in parts]
        spend(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, once its result is known to be of bearable size."""
        spend(_result_size(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, once its result is known to be of bearable size."""
        spend(0)
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | list | tuple):
            spend(_call_size(name, owner, args, kwargs))
        if isinstance(__obj, Macro):
            spend(MAX_SOURCE_CHARS // 10)
        return super().call(__context, __obj, *args, **kwargs)


def written(template: Template, variables: Mapping[str, Any]) -> str:
    """Render a template within bounds.

    Raises:
        SecurityError: it works or writes too much.
        jinja2.TemplateError: it fails.
    """
    with bounded():
        pieces: list[str] = []
        for piece in template.generate(**variables):
            spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)


def _written(node: nodes.Node) -> int:
    """Characters of plain text below a node."""
    return sum(len(data.data) for data in node.find_all(nodes.TemplateData))


def _counted(items: Iterable[Any], chars: int) -> Iterator[Any]:
    """The items of a loop, each a step that writes the loop's plain text."""
    for item in items:
        spend(chars)
        yield item


def _range(*args: int) -> range:
    span = range(*args)
    if len(span) > MAX_RANGE:
        raise SecurityError(f"range of {len(span)} is above {MAX_RANGE}")
    return span


def _result_size(operator: str, left: Any, right: Any) -> int:
    """Characters (or entries) of an operator's result.

    Raises:
        SecurityError: a whole number would have too many digits.
    """
    if isinstance(left, int) and isinstance(right, int):
        bits = {"**": left.bit_length() * max(0, right), "*": left.bit_length() + right.bit_length()}.get(operator, 0)
        if bits > MAX_BITS:
            raise SecurityError("a number with too many digits")
        return 0
    if operator == "*":
        for some, times in ((left, right), (right, left)):
            if isinstance(some, str | bytes | list | tuple) and isinstance(times, int):
                return len(some) * max(0, times)
    if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        return len(left) + len(right)
    if operator == "%" and isinstance(left, str):
        return _formatted_size(left, right if isinstance(right, tuple) else (right,))
    return 0


def _formatted_size(pattern: str, values: Sequence[Any]) -> int:
    if _WIDTH.search(pattern):
        raise SecurityError("a format with so wide a field")
    return len(pattern) * 10_000 if len(pattern) > 10_000 else len(pattern) + sum(_length(value) for value in values)


def _call_size(name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Characters of what a method of a text returns, at most."""
    values = (*args, *kwargs.values())
    if not isinstance(owner, str):
        return len(owner)
    if name in ("format", "format_map"):
        if _WIDTH.search(owner) or re.search(r"\{[^}]*\{", owner):
            raise SecurityError("a format with so wide a field")
        return len(owner) * 10 + owner.count("{") * sum(_length(value) for value in values)
    if name in ("center", "ljust", "rjust", "zfill"):
        return max([len(owner), *(value for value in values if isinstance(value, int))])
    if name == "expandtabs":
        return len(owner) + owner.count("\t") * max([8, *(value for value in values if isinstance(value, int))])
    if name == "replace" and len(values) >= 2:
        return _replaced_size(owner, values[0], values[1])
    if name == "join" and values and isinstance(values[0], Sequence):
        return len(owner) * len(values[0]) + sum(_length(value) for value in values[0])
    if name == "translate":
        raise SecurityError("translate is not allowed")
    return len(owner)


def _replaced_size(text: str, old: Any, new: Any) -> int:
    old, new = str(old), str(new)
    found = len(text) + 1 if not old else text.count(old)
    return len(text) + found * len(new)


def _length(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return 1 + value.bit_length() // 3
    return len(value) if isinstance(value, str) else len(str(value))


def _guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is measured first, where it can grow beyond what it was given."""
    if name not in _GROWING:
        return call
    measure = _GROWING[name]

    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = args[1:] if getattr(call, "jinja_pass_arg", None) is not None else args
        spend(measure(*given, **kwargs))
        return call(*args, **kwargs)

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(call, mark):
            setattr(guarded, mark, getattr(call, mark))
    return guarded


def _with_numbers(value: Any, *args: Any, **kwargs: Any) -> int:
    """A filter that pads by numbers it is given: their largest for each line or entry."""
    size = _length(value)
    numbers = [one for one in (*args, *kwargs.values()) if isinstance(one, int) and not isinstance(one, bool)]
    texts = [len(one) for one in (*args, *kwargs.values()) if isinstance(one, str)]
    lines = value.count("\n") + 1 if isinstance(value, str) else size
    return size + lines * max([0, *numbers, *texts])


def _as_format(value: Any, *args: Any, **kwargs: Any) -> int:
    return _formatted_size(str(value), (*args, *kwargs.values()))


def _as_replace(value: Any, old: Any, new: Any, count: Any = None) -> int:
    return _replaced_size(str(value), old, new)


def _as_join(value: Any, d: Any = "", attribute: Any = None) -> int:
    return sum(_length(one) + _length(d) for one in value) if isinstance(value, Sequence) else 0


_GROWING: dict[str, Callable[..., int]] = {
    "center": _with_numbers,
    "indent": _with_numbers,
    "wordwrap": _with_numbers,
    "batch": _with_numbers,
    "slice": _with_numbers,
    "tojson": _with_numbers,
    "truncate": _with_numbers,
    "format": _as_format,
    "replace": _as_replace,
    "join": _as_join,
}
