"""Sandboxed Jinja2 prompts: data in, text out, no code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import StrictUndefined, Template, meta, nodes
from jinja2 import TemplateError as JinjaError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from env.errors import TemplateError
from env.tasks.example import JsonValue

MAX_RANGE = 10_000
"""Longest loop a template may write itself, so that a prompt cannot eat the machine."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of all prompts; `range` is bounded, unknown names are errors."""

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
        self.globals = {"range": self._range}

    @staticmethod
    def _range(*args: int) -> range:
        span = range(*args)
        if len(span) > MAX_RANGE:
            raise SecurityError(f"range of {len(span)} is above {MAX_RANGE}")
        return span


_SANDBOX = _Sandbox()


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    return _SANDBOX.from_string(source)


def template_variables(source: str) -> frozenset[str]:
    """Names a template needs from outside.

    Raises:
        TemplateError: the template cannot be parsed; the message gives the line.
    """
    return frozenset(meta.find_undeclared_variables(parsed_template(source))) - set(_SANDBOX.globals)


def parsed_template(source: str) -> nodes.Template:
    """A template as its syntax tree, with the white space that rendering keeps.

    Raises:
        TemplateError: the template cannot be parsed; the message gives the line.
    """
    try:
        return _SANDBOX.parse(source)
    except JinjaError as error:
        line = getattr(error, "lineno", None)
        raise TemplateError(f"template does not parse{f' (line {line})' if line else ''}: {error}") from error


def render(source: str, variables: Mapping[str, JsonValue]) -> str:
    """Fill a template.

    Args:
        source: Jinja2 source, run in an immutable sandbox.
        variables: fields of the example and parsed answers of earlier stages, by stage name.

    Raises:
        TemplateError: an unknown name, a forbidden attribute or a failing expression.
    """
    try:
        return _compiled(source).render(**variables).strip()
    except (JinjaError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise TemplateError(f"prompt template failed: {error}") from error
