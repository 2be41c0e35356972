"""Any text inside Markdown: shown as it is, and nothing but text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plans.escaping import code, plain_line, prose, table
from tests.planner.plans.reading import GITHUB, tables, tokens

HARMLESS = {"paragraph_open", "paragraph_close", "inline", "text", "code_inline"}
TABLE = {f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")}

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![pixel](http://127.0.0.1/pixel.png)",
    "see http://127.0.0.1/x or www.example.org or me@example.org",
    "[ref]: http://127.0.0.1",
    "<http://127.0.0.1>",
    "a | b | c",
    "`code` ``two`` ```three",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "> quote",
    "---",
    "===",
    "- - -",
    "    indented",
    "*bold* _it_ **x** __y__ ~~z~~",
    "&lt;b&gt; &#60; &amp",
    "\\",
    "\\`",
    "$x^2$ @someone #12",
    "line\nbreak  \n\n# heading",
    "tab\tand\u2028line",
    "<!-- comment",
    "```\nblock",
    "[^1]",
    "- [ ] task",
)

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(alphabet="ab1 .)(*_`[]<>|\\~#&!+-=@:/\n\t$\"'", max_size=40),
    st.text(max_size=40),
)


def read(markdown: str) -> str:
    return "".join(t.content for t in tokens(markdown) if t.type in ("text", "code_inline"))


@settings(deadline=None)
@given(texts)
def test_prose_shows_the_text_and_nothing_else(text: str) -> None:
    written = prose(text)
    assert {t.type for t in tokens(written)} <= HARMLESS
    assert read(written) == plain_line(text)


@settings(deadline=None)
@given(texts)
def test_code_shows_the_text_and_nothing_else(text: str) -> None:
    written = code(text)
    assert {t.type for t in tokens(written)} <= HARMLESS
    assert read(written) == plain_line(text)


@settings(deadline=None)
@given(texts, texts)
def test_prose_after_other_text_and_in_lists_stays_prose(first: str, second: str) -> None:
    written = f"- {prose(f'Round 1: {first}')}\n- {prose(second)}"
    lists = {"bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"}
    assert {t.type for t in tokens(written)} <= HARMLESS | lists
    assert sum(t.type == "bullet_list_open" for t in tokens(written)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_a_table_keeps_its_cells(rows: list[tuple[str, str]]) -> None:
    written = table(["name", "text"], [[code(one), prose(other)] for one, other in rows], {1})
    assert {t.type for t in tokens(written)} <= HARMLESS | TABLE
    cells = [(row["name"], row["text"]) for row in tables(written)[""]]
    # A bar in code takes a backslash before it along; nothing else changes.
    assert cells == [(plain_line(one).replace("\\|", "|"), plain_line(other)) for one, other in rows]


@pytest.mark.parametrize("text", HOSTILE)
def test_renderers_that_find_links_by_themselves_find_none(text: str) -> None:
    """Addresses stand in code, where no extension looks; mentions and bare domains too."""
    outside = "".join(t.content for t in tokens(prose(text)) if t.type == "text")
    assert not any(sign in outside for sign in ("://", "www.", "@"))


def test_numbers_and_names_are_not_cluttered() -> None:
    assert prose("187.2 MFLOPs, +0.025 (-0.1 to +0.3)") == "187.2 MFLOPs, +0.025 (-0.1 to +0.3)"
    assert prose("-0.032 and more") == "-0.032 and more"
    assert code("best_of_n") == "`best_of_n`"


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_control_character_and_no_override_of_direction_is_written(text: str) -> None:
    line = plain_line(text + "\x00\x1b\u202e\ud83e")
    assert not any(unicodedata.category(c) in ("Cc", "Cs") or c == "\u202e" for c in line)
    line.encode()


def test_the_reader_of_these_tests_does_see_html_and_links() -> None:
    assert any(t.type == "html_inline" for t in tokens("a <b>"))
    assert any(t.type == "link_open" for t in tokens("[a](b)"))
    assert GITHUB.render("a|b\n-|-\n1|2").startswith("<table>")
