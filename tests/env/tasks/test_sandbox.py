"""Prompt templates: neither Python's insides nor the machine's time and memory are theirs."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from env.errors import TemplateError
from env.tasks.prompts import render, template_variables

DATA = {"question": "Why?\nBecause.", "items": ["a", "b", "c"], "big": "x" * 100_000, "n": 3}

ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ question|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__') }}",
    "{{ range.__globals__ }}",
    "{{ range.__init__ }}",
    "{{ '{0.__class__}'.format(question) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ namespace }}",
    "{{ joiner() }}",
    "{{ config }}",
    "{{ items.append('d') }}",
    "{{ items.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends '/etc/passwd' %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% for x in items recursive %}{{ loop(items) }}{% endfor %}",
    "{{ (items|map(attribute='__class__')|first).__name__ }}",
    "{{ (items|groupby('__class__'))[0][0]() }}",
    "{{ items|map('_counted', 1)|list|first|attr('gi_frame') }}",
]

FLOODS = [
    "{{ 'a' * 1000000000 }}",
    "{{ 1000000000 * 'a' }}",
    "{{ [0] * 1000000000 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 2 ** 1000000 }}",
    "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
    "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
    "{% for a in big %}{% for b in big %}{% for c in big %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(1000000) %}{% endfor %}",
    "{% for a in range(10000) %}" + "x" * 100_000 + "{% endfor %}",
    "{% set y %}{% for a in range(10000) %}" + "x" * 100_000 + "{% endfor %}{% endset %}{{ y|length }}",
    "{% set y = big %}" + "{% set y = y ~ y %}" * 30 + "{{ y|length }}",
    "{% set y = big %}" + "{% set y = y + y %}" * 30 + "{{ y|length }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ '\\t'.expandtabs(1000000000) }}",
    "{{ big|indent(1000000000, true) }}",
    "{{ big|replace('x', big) }}",
    "{{ big.replace('', big) }}",
    "{{ big.join(big) }}",
    "{{ big|join(big) }}",
    "{{ [1]|batch(1000000000, 0)|list }}",
    "{{ [1]|slice(1000000000)|list }}",
    "{{ [1]|tojson(indent=1000000000) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}" + "x" * 100_000 + "{% endmacro %}{% for a in range(10000) %}{{ m() }}{% endfor %}",
    "{{ '(' * 3 }}" + "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "{{ " + "-" * 100_000 + "1 }}",
    "x" * 300_000,
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_template_reaches_pythons_insides(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source, DATA)
    assert DATA["items"] == ["a", "b", "c"]


@pytest.mark.parametrize("source", FLOODS, ids=[source[:60].encode("unicode_escape").decode() for source in FLOODS])
def test_no_template_eats_the_machine(source: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(TemplateError):
            render(source, DATA)
        seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 5
    assert peak < 300e6


@pytest.mark.parametrize("source", ["{{ " + "(" * 100_000, "x" * 300_000, "{% include 'x' %}"])
def test_what_cannot_be_a_prompt_is_found_when_it_is_checked(source: str) -> None:
    with pytest.raises(TemplateError, match="does not parse"):
        template_variables(source)


def test_what_prompts_do_still_works() -> None:
    source = (
        "{% macro line(x) %}- {{ x|upper }}{% endmacro %}"
        "{% for item in items %}{{ loop.index }}/{{ loop.length }} {{ line(item) }}"
        "{% if not loop.last %}, {% endif %}{% endfor %}; "
        "{% for i in range(n) %}{{ i * 2 }}{% endfor %} {{ '%.2f' % 0.5 }} {{ '%s of %d'|format('one', 3) }} "
        "{{ items|join(' and ') }} {{ question|replace('?', '!')|indent(2) }} {{ 'q: ' ~ n ~ '.' }} {{ 2 ** 10 }}"
    )
    assert render(source, DATA) == (
        "1/3 - A, 2/3 - B, 3/3 - C; 024 0.50 one of 3 a and b and c Why!\n  Because. q: 3. 1024"
    )
    assert render("{{ question.split('\\n')[0] }} {{ ', '.join(items) }} {{ '{} {}'.format(n, 'x') }}", DATA) == (
        "Why? a, b, c 3 x"
    )
    assert template_variables("{% for i in items %}{{ i }}{{ range(2) }}{% endfor %}{{ other }}") == {"items", "other"}
