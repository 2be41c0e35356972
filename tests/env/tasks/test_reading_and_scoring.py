from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.errors import TemplateError
from env.spec.stage import AfterParser, IdsParser, JsonParser, ParserSpec, RegexParser, TextParser
from env.spec.study import FileData, InlineData
from env.tasks.data import DataError, load_splits
from env.tasks.metrics import exact_match, token_f1
from env.tasks.parsers import canonical, from_canonical, parser_of
from env.tasks.prompts import render, template_variables


@pytest.mark.parametrize(
    ("spec", "text", "answer"),
    [
        (TextParser(), "  a   b \n", "a b"),
        (TextParser(), "   ", None),
        (AfterParser(kind="after", marker="=", join=True), "1 + 1 = 0 2 = 4 2", "42"),
        (AfterParser(kind="after", marker="="), "no marker", None),
        (IdsParser(kind="ids"), "#3 #1 and #3", [1, 3]),
        (IdsParser(kind="ids"), "none", None),
        (RegexParser(kind="regex", pattern=r"answer: (\w+)"), "answer: a answer: b", "b"),
        (JsonParser(kind="json"), 'noise {"a": [1]} more', {"a": [1]}),
        (JsonParser(kind="json", field="a"), '{"b": 1} {"a": 2}', 2),
        (JsonParser(kind="json"), "{broken", None),
    ],
)
def test_parsers_read_answers_and_give_none_where_there_is_none(spec: ParserSpec, text: str, answer: object) -> None:
    assert parser_of(spec)(text) == answer


@given(st.text())
def test_no_text_makes_a_parser_fail(text: str) -> None:
    for spec in (TextParser(), IdsParser(kind="ids"), JsonParser(kind="json"), AfterParser(kind="after", marker="=")):
        answer = parser_of(spec)(text)
        assert from_canonical(canonical(answer)) == answer


def test_equal_answers_have_one_canonical_form() -> None:
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert canonical(None) is None


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("The Cat!", ["cat"], 1.0, 1.0),
        ("a black cat", ["black dog", "the cat"], 0.0, 2 / 3),
        (None, ["x"], 0.0, 0.0),
        ("a", ["b"], 0.0, 0.0),
        (42, ["42"], 1.0, 1.0),
    ],
)
def test_metrics_follow_the_squad_definitions(answer: object, gold: list[str], exact: float, f1: float) -> None:
    assert exact_match(answer, gold) == exact  # type: ignore[arg-type]
    assert token_f1(answer, gold) == pytest.approx(f1)  # type: ignore[arg-type]


def test_an_answer_that_normalises_to_nothing_is_compared_raw() -> None:
    assert exact_match("a", ["the"]) == 0.0
    assert exact_match("a", ["a"]) == 1.0


def test_prompts_are_sandboxed() -> None:
    for source in (
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{% for i in range(99999999) %}{% endfor %}",
    ):
        with pytest.raises(TemplateError):
            render(source, {"x": "y"})
    with pytest.raises(TemplateError, match="does not parse"):
        template_variables("{% if %}")


def test_templates_state_what_they_need() -> None:
    source = "{% for i in ids %}{{ story[i - 1] }} {{ range(3) | length }}{% endfor %}{{ loop_free }}"
    assert template_variables(source) == {"ids", "story", "loop_free"}


def test_splits_are_disjoint_reproducible_and_keep_their_proportion_when_data_is_short() -> None:
    rows = tuple({"id": str(i), "question": "q", "answer": "a"} for i in range(10))
    data = InlineData(source="inline", rows=rows, search=50, test=50)
    first, again = load_splits(data), load_splits(data)
    assert first == again
    assert len(first.search) == 5
    assert len(first.test) == 5
    assert not {e.id for e in first.search} & {e.id for e in first.test}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the data set is empty"),
        ('{"question": 1}\n{"question": 2}\n', "line 1: needs `answer`"),
        ("{nope\n", "line 1: not JSON"),
        ('{"answer": "a"}\n', "has one row"),
        ('{"id": "x", "answer": "a"}\n{"id": "x", "answer": "b"}\n', "same id"),
    ],
)
def test_bad_data_files_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        load_splits(FileData(source="file", path="data.jsonl"))


@pytest.mark.parametrize("path", ["../data.jsonl", "/etc/passwd", "link/data.jsonl"])
def test_a_spec_reads_nothing_outside_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "data.jsonl").write_text('{"answer": "a"}\n{"answer": "b"}\n')
    (root / "link").symlink_to(outside)
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(root))
    with pytest.raises(DataError, match="outside the data root"):
        load_splits(FileData(source="file", path=path))
