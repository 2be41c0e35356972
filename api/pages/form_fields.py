"""Form fields from a Pydantic model: walks its JSON schema, so that the form never lags behind the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from env.spec import StudySpec
from planner.proposers import proposer_kinds

Kind = Literal["text", "paragraph", "whole", "number", "choice", "yes_no", "yaml"]

_ABBREVIATIONS = {"url": "URL", "api": "API", "env": "environment variable", "yaml": "YAML", "llm": "LLM"}
_UNITS = {"s": "seconds"}
_OFFERED: Mapping[str, Callable[[], tuple[str, ...]]] = {"proposer.kind": proposer_kinds}
"""By path, choices that the schema leaves open because installed packages add to them."""


@dataclass(frozen=True)
class FormField:
    """One control."""

    path: str
    """Dotted path in the spec; faults name it."""

    name: str
    """Of the control. It differs from the path where alternatives share a path."""

    label: str
    kind: Kind
    help: str = ""
    required: bool = False
    nullable: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """HTML id."""
        return "field-" + self.name.replace(".", "-").replace("@", "-")


@dataclass(frozen=True)
class FormGroup:
    """Fields that belong together: a nested model."""

    path: str
    label: str
    help: str
    members: tuple[FormField | FormGroup | FormVariants, ...]

    @property
    def id(self) -> str:
        """HTML id."""
        return "group-" + self.path.replace(".", "-")


@dataclass(frozen=True)
class FormVariants:
    """A tagged union: a choice, and the fields of each alternative."""

    path: str
    label: str
    chooser: FormField
    variants: Mapping[str, FormGroup] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """HTML id."""
        return "group-" + self.path.replace(".", "-")


Member = FormField | FormGroup | FormVariants


@cache
def study_form() -> FormGroup:
    """The form of a study spec."""
    schema = StudySpec.model_json_schema()
    return _Walk(schema["$defs"]).group("", "", "Study", schema)


def fields_of(member: Member, values: Mapping[str, str] | None = None) -> Iterator[FormField]:
    """Every control below a member, in order.

    Args:
        member: where to begin.
        values: submitted values; alternatives that are not chosen are left out. All where None.
    """
    match member:
        case FormField():
            yield member
        case FormGroup():
            for inner in member.members:
                yield from fields_of(inner, values)
        case FormVariants():
            yield member.chooser
            chosen = None if values is None else values.get(member.chooser.name, "")
            for tag, group in member.variants.items():
                if chosen is None or tag == chosen:
                    yield from fields_of(group, values)


class _Walk:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def group(self, path: str, name: str, label: str, schema: Mapping[str, Any]) -> FormGroup:
        required = set(schema.get("required", ()))
        members = [
            self._member(_join(path, key), _join(name, key), key, self._resolved(value), key in required)
            for key, value in schema["properties"].items()
            if "const" not in value
        ]
        return FormGroup(path, label, _sentence(schema.get("description", "")), tuple(members))

    def _member(self, path: str, name: str, key: str, schema: Mapping[str, Any], required: bool) -> Member:
        label = _label(key)
        if "discriminator" in schema:
            return self._variants(path, name, label, schema, required)
        if "properties" in schema and self._is_flat(schema):
            return self.group(path, name, label, schema)
        bare, nullable = self._without_null(schema)
        kind, choices = _kind(bare)
        if path in _OFFERED:
            kind, choices = "choice", _OFFERED[path]()
        return FormField(
            path=path,
            name=name,
            label=label,
            kind=kind,
            help=_help(schema, bare, kind),
            required=required,
            nullable=nullable,
            default=schema.get("default"),
            choices=choices,
        )

    def _variants(self, path: str, name: str, label: str, schema: Mapping[str, Any], required: bool) -> FormVariants:
        tag = schema["discriminator"]["propertyName"]
        variants: dict[str, FormGroup] = {}
        for value, reference in schema["discriminator"]["mapping"].items():
            variants[value] = self.group(path, f"{name}@{value}", value, self._resolved({"$ref": reference}))
        chooser = FormField(
            path=_join(path, tag),
            name=_join(name, tag),
            label=_label(tag),
            kind="choice",
            required=required,
            choices=tuple(variants),
        )
        return FormVariants(path, label, chooser, variants)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = schema.get("$ref")
        if reference is None:
            return schema
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**self._definitions[reference.rpartition("/")[2]], **beside}

    def _without_null(self, schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
        options = [self._resolved(option) for option in schema.get("anyOf", ())]
        bare = [option for option in options if option.get("type") != "null"]
        if len(bare) == 1 and len(options) == 2:
            return bare[0], True
        return schema, False

    def _is_flat(self, schema: Mapping[str, Any]) -> bool:
        """Whether an object can be shown as single controls; lists of objects and free mappings cannot."""
        for value in schema["properties"].values():
            inner, _ = self._without_null(self._resolved(value))
            if inner.get("type") == "object" and not ("properties" in inner and self._is_flat(inner)):
                return False
            if inner.get("type") == "array" and self._resolved(inner.get("items", {})).get("type") != "string":
                return False
        return True


def _kind(schema: Mapping[str, Any]) -> tuple[Kind, tuple[str, ...]]:
    if "enum" in schema:
        return "choice", tuple(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "yes_no", ()
        case "integer":
            return "whole", ()
        case "number":
            return "number", ()
        case "string":
            return ("paragraph" if schema.get("maxLength", 0) > 500 else "text"), ()
        case _:
            return "yaml", ()


def _help(schema: Mapping[str, Any], bare: Mapping[str, Any], kind: Kind) -> str:
    parts = [_sentence(schema.get("description", bare.get("description", "")))]
    if kind in ("whole", "number"):
        parts.append(_range(bare, kind))
    if kind == "yaml":
        parts.append("Written in YAML.")
    if kind == "text" and "pattern" in bare and "[A-Za-z0-9_.-]" in bare["pattern"]:
        parts.append("Letters, digits, dot, dash and underscore; begins with a letter.")
    if schema.get("default") is None and bare is not schema:
        parts.append("May be left empty.")
    return " ".join(part for part in parts if part)


def _range(schema: Mapping[str, Any], kind: Kind) -> str:
    words = "Whole number" if kind == "whole" else "Number"
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{words}, {low:,} to {high:,}."
    if above is not None and high is not None:
        return f"{words} above {above:,}, at most {high:,}."
    if low is not None:
        return f"{words}, {low:,} or more."
    if above is not None:
        return f"{words} above {above:,}; 6e8 is fine."
    return f"{words}."


def _label(key: str) -> str:
    *words, last = key.split("_")
    parts = [_ABBREVIATIONS.get(word, word) for word in words]
    parts.append(f"({_UNITS[last]})" if parts and last in _UNITS else _ABBREVIATIONS.get(last, last))
    text = " ".join(parts)
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = " ".join(text.split()).replace("`", "")
    return f"{text}." if text and text[-1] not in ".!?:" else text


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
