"""Jinja2 prompts in their sandbox: data in, text out, no code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import Template, meta, nodes
from jinja2 import TemplateError as JinjaError

from env.errors import TemplateError
from env.tasks.example import JsonValue
from env.tasks.sandbox import Sandbox, written

_SANDBOX = Sandbox()
_FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


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
    except (RecursionError, MemoryError, ValueError) as error:
        raise TemplateError(f"template does not parse: {_reason(error)}") from error


def render(source: str, variables: Mapping[str, JsonValue]) -> str:
    """Fill a template.

    Args:
        source: Jinja2 source, run in an immutable sandbox.
        variables: fields of the example and parsed answers of earlier stages, by stage name.

    Raises:
        TemplateError: an unknown name, a forbidden attribute or a failing expression.
    """
    try:
        return written(_compiled(source), variables).strip()
    except (JinjaError, SyntaxError, RecursionError, MemoryError, *_FAILURES) as error:
        raise TemplateError(f"prompt template failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError | MemoryError) else str(error)
