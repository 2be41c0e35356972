"""Templates as plain Python: the same text, or a refusal that names what is not plain."""

from __future__ import annotations

from typing import Any

import pytest

from env.tasks.prompts import render
from planner.export import NotStandalone
from planner.export.templates import prompt_function

VALUES: dict[str, Any] = {
    "question": 'What is "x" in {y}?\n',
    "story": ["one", "two", "three"],
    "ids": [3, 1],
    "n": 2,
    "person": {"name": "Ann", "age": 3},
    "pairs": [["a", 1], ["b", 2]],
    "nothing": None,
}


def plain(source: str) -> str:
    space: dict[str, Any] = {"Any": Any}
    exec(prompt_function("prompt", source), space)
    return str(space["prompt"](VALUES))


@pytest.mark.parametrize(
    "source",
    [
        'plain \\ text with \'quotes\' and """more"""',
        "{{ question }}",
        "{% for s in story %}#{{ loop.index }} {{ s }} {% endfor %}ask {{ person.name }}",
        "{% for i in ids if 0 < i <= story | length %}{{ story[i - 1] }} {% endfor %}",
        "{% for s in story %}{{ s }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
        "{% for s in [] %}{{ s }}{% else %}none of {{ loop_free }}{% endfor %}".replace("{{ loop_free }}", "them"),
        "{% for a, b in pairs %}{{ a }}={{ b }} of {{ loop.length }}; {% endfor %}",
        "{% for s in story %}{% for t in story %}{{ loop.index0 }}{{ s }}{% endfor %}{{ loop.last }}{% endfor %}",
        "{% if n > 1 and 'one' in story %}many{% elif n %}one{% else %}none{% endif %}",
        "{{ 'a' if n == 2 else 'b' }} {{ story | join(', ') | upper }} {{ story[0:2] }} {{ n * 2 + 1 }} {{ n ~ 'x' }}",
        "{{ nothing }} {{ person }} {{ -n }} {{ story | first }} {{ question | trim | replace('x', 'z') }}",
        "{% for i in range(1, 4) %}\n  {{ i }}\n{% endfor %}\nend",
        "  {# a comment #} {% if n %}\n  kept\n  {% endif %}",
    ],
)
def test_a_function_gives_what_the_template_renders(source: str) -> None:
    assert plain(source) == render(source, VALUES)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ story | tojson }}", "tojson"),
        ("{% set x = 1 %}{{ x }}", "Assign"),
        ("{{ question.upper() }}", "call"),
        ("{{ question is defined }}", "Test"),
        ("{% macro m() %}{% endmacro %}", "Macro"),
        ("{% for s in story %}{{ loop.cycle }}{% endfor %}", "loop.cycle"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(source: str, named: str) -> None:
    with pytest.raises(NotStandalone, match=named):
        plain(source)
