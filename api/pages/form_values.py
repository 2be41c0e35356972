"""From a spec to what stands in the form, and from a submitted form back to a spec's plain data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from api.bodies import check_plain, read_yaml, usable_spec
from api.pages.form_fields import FormField, FormGroup, FormVariants, Member, fields_of
from env.spec import Fault, SpecError, StudySpec


@dataclass(frozen=True)
class PlacedFaults:
    """Faults by the id of the control or group they stand beside, and in order for the summary."""

    by_id: Mapping[str, list[Fault]] = field(default_factory=dict)
    summary: tuple[tuple[str, Fault], ...] = ()
    """(id to link to, or empty; fault)."""


def filled(form: FormGroup, raw: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the controls for a spec's plain data; defaults where it says nothing."""
    return {control.name: _shown(control, _held(raw, control)) for control in fields_of(form)}


def submitted(form: FormGroup, values: Mapping[str, str]) -> dict[str, str]:
    """The texts of all controls, those of alternatives that were not chosen included; missing ones are empty."""
    return {control.name: values.get(control.name, "").replace("\r\n", "\n") for control in fields_of(form)}


def checked_spec(form: FormGroup, values: Mapping[str, str]) -> StudySpec:
    """The spec that a submitted form describes.

    Raises:
        SpecError: with every fault, those of YAML texts included.
    """
    raw: dict[str, Any] = {}
    unreadable: list[Fault] = []
    dropped: list[str] = []
    for control in fields_of(form, values):
        text = values.get(control.name, "")
        if not text.strip() and control.kind != "yes_no":
            _branch(raw, control.path)
            continue
        try:
            value = _read(control, text)
            check_plain(value, control.path)
        except SpecError as error:
            unreadable += error.faults
            dropped.append(control.path)
            continue
        _put(raw, control.path, value)
    try:
        spec = usable_spec(raw)
    except SpecError as error:
        # That an unreadable field is missing is no fault of its own.
        rest = [f for f in error.faults if not any(_is_below(f.path, path) for path in dropped)]
        raise SpecError([*unreadable, *rest]) from error
    if unreadable:
        raise SpecError(unreadable)
    return spec


def yaml_of(form: FormGroup, values: Mapping[str, str]) -> str:
    """The spec that a form describes as YAML, as far as its texts can be read; what is as by default is left out."""
    raw: dict[str, Any] = {}
    for control in fields_of(form, values):
        text = values.get(control.name, "")
        chooser = control.required and control.kind == "choice"
        if not text.strip() and control.kind != "yes_no":
            continue
        if not chooser and text == _shown(control, control.default):
            continue
        try:
            _put(raw, control.path, _typed(control, _read(control, text)))
        except SpecError:
            # Its own field says what is wrong with it; here it stands as it was typed.
            _put(raw, control.path, text)
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=110)


def _typed(control: FormField, value: Any) -> Any:
    """A number as one, where it is one."""
    try:
        return int(value) if control.kind == "whole" else float(value) if control.kind == "number" else value
    except (TypeError, ValueError):
        return value


def place(form: FormGroup, faults: Iterable[Fault], values: Mapping[str, str]) -> PlacedFaults:
    """Put each fault beside the control or group whose path is nearest above it."""
    places = dict(_places(form, values))
    by_id: defaultdict[str, list[Fault]] = defaultdict(list)
    summary: list[tuple[str, Fault]] = []
    for fault in faults:
        fitting = [path for path in places if path and _is_below(fault.path, path)]
        target = places[max(fitting, key=len)] if fitting else ""
        if target:
            by_id[target].append(fault)
        summary.append((target, fault))
    return PlacedFaults(dict(by_id), tuple(summary))


def _places(member: Member, values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(path, id) of groups and controls that count; controls after groups, so that they win for equal paths."""
    match member:
        case FormField():
            yield member.path, member.id
        case FormGroup():
            yield member.path, member.id
            for inner in member.members:
                yield from _places(inner, values)
        case FormVariants():
            yield member.path, member.id
            yield from _places(member.chooser, values)
            chosen = member.variants.get(values.get(member.chooser.name, ""))
            for inner in chosen.members if chosen else ():
                yield from _places(inner, values)


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith((f"{above}.", f"{above}["))


def _held(raw: Mapping[str, Any], control: FormField) -> Any:
    """What plain data holds for a control; its default where nothing, or where another alternative is chosen."""
    variant = control.name.partition("@")[2].partition(".")[0]
    node: Any = raw
    if variant:
        union = _lookup(raw, control.name.partition("@")[0])
        if not isinstance(union, Mapping) or variant not in union.values():
            return control.default
    node = _lookup(raw, control.path)
    return control.default if node is None else node


def _lookup(raw: Mapping[str, Any], path: str) -> Any:
    node: Any = raw
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def _shown(control: FormField, value: Any) -> str:
    if value is None:
        return ""
    if control.kind == "yaml":
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    if control.kind == "yes_no":
        return "yes" if value else ""
    if control.kind == "number":
        value = _number(value)
    if isinstance(value, float):
        plain = f"{value:g}".replace("e+0", "e").replace("e+", "e")
        return plain if float(plain) == value else repr(value)
    return " ".join(str(value).split()) if control.kind == "text" else str(value)


def _number(value: Any) -> Any:
    """A number that YAML took for text, as it does with 6.0e8."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _read(control: FormField, text: str) -> Any:
    """A text as data. Numbers stay texts: the model itself reads them and says what is wrong."""
    match control.kind:
        case "yaml":
            return read_yaml(text, control.path)
        case "yes_no":
            return text == "yes"
        case "paragraph":
            return text.replace("\r\n", "\n")
        case _:
            return text.strip()


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    _branch(raw, path)[path.rpartition(".")[2]] = value


def _branch(raw: dict[str, Any], path: str) -> dict[str, Any]:
    """The object a path's last name belongs to, made where missing: an empty control is a fault of its own."""
    node = raw
    for key in path.split(".")[:-1]:
        node = node.setdefault(key, {})
    return node
