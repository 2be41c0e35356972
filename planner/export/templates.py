"""Turns a prompt's template into a plain Python function, so that a module needs no template engine."""

from __future__ import annotations

from jinja2 import nodes

from env.errors import ApportionError
from env.tasks.prompts import parsed_template

_COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}
_BINARY: dict[type[nodes.BinExpr], str] = {
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
    nodes.And: "and",
    nodes.Or: "or",
}
_FILTERS = {
    "length": "len({0})",
    "count": "len({0})",
    "upper": "str({0}).upper()",
    "lower": "str({0}).lower()",
    "trim": "str({0}).strip()",
    "capitalize": "str({0}).capitalize()",
    "string": "str({0})",
    "list": "list({0})",
    "first": "list({0})[0]",
    "last": "list({0})[-1]",
    "int": "int({0})",
    "float": "float({0})",
    "sum": "sum({0})",
    "min": "min({0})",
    "max": "max({0})",
    "abs": "abs({0})",
}
_LOOP = {
    "index": "({0} + 1)",
    "index0": "{0}",
    "first": "({0} == 0)",
    "last": "({0} == len({1}) - 1)",
    "length": "len({1})",
}


class NotStandalone(ApportionError):
    """A part of a plan that cannot be written as plain Python; the message names it."""


def prompt_function(name: str, source: str) -> str:
    """The source of a function ``name(v)`` that gives a template's text for variables ``v``.

    Raises:
        NotStandalone: the template uses something that has no plain equivalent here.
        TemplateError: it does not parse.
    """
    writer = _Writer()
    writer.statements(parsed_template(source).body, 1)
    body = "\n".join(writer.lines)
    return f'def {name}(v: dict[str, Any]) -> str:\n    out: list[str] = []\n{body}\n    return "".join(out).strip()\n'


class _Writer:
    """Writes statements line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._scopes: list[dict[str, str]] = []
        self._loops: list[tuple[str, str]] = []
        self._count = 0

    def statements(self, body: list[nodes.Node], depth: int) -> None:
        """Write the nodes of a block."""
        before = len(self.lines)
        for node in body:
            self._statement(node, depth)
        if len(self.lines) == before:
            self._line(depth, "pass")

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _statement(self, node: nodes.Node, depth: int) -> None:
        match node:
            case nodes.Output():
                for part in node.nodes:
                    if isinstance(part, nodes.TemplateData):
                        self._line(depth, f"out.append({part.data!r})")
                    else:
                        self._line(depth, f"out.append(str({self.expression(part)}))")
            case nodes.If():
                self._if(node, depth)
            case nodes.For():
                self._for(node, depth)
            case _:
                raise _unknown(node)

    def _if(self, node: nodes.If, depth: int) -> None:
        self._line(depth, f"if {self.expression(node.test)}:")
        self.statements(node.body, depth + 1)
        for other in node.elif_:
            self._line(depth, f"elif {self.expression(other.test)}:")
            self.statements(other.body, depth + 1)
        if node.else_:
            self._line(depth, "else:")
            self.statements(node.else_, depth + 1)

    def _for(self, node: nodes.For, depth: int) -> None:
        if node.recursive:
            raise NotStandalone("a recursive loop")
        self._count += 1
        place, items = f"i{self._count}", f"items{self._count}"
        source = self.expression(node.iter)
        target, names = self._target(node.target)
        self._scopes.append(names)
        condition = f" if {self.expression(node.test)}" if node.test is not None else ""
        self._line(depth, f"{items} = [{target} for {target} in {source}{condition}]")
        self._line(depth, f"for {place}, {target} in enumerate({items}):")
        self._loops.append((place, items))
        self.statements(node.body, depth + 1)
        self._loops.pop()
        self._scopes.pop()
        if node.else_:
            self._line(depth, f"if not {items}:")
            self.statements(node.else_, depth + 1)

    def _target(self, node: nodes.Node) -> tuple[str, dict[str, str]]:
        if isinstance(node, nodes.Name):
            written = f"{node.name}_{self._count}"
            return written, {node.name: written}
        if isinstance(node, nodes.Tuple):
            pairs = [self._target(item) for item in node.items]
            names = {name: written for _, found in pairs for name, written in found.items()}
            return f"({', '.join(text for text, _ in pairs)},)", names
        raise _unknown(node)

    def expression(self, node: nodes.Node) -> str:
        """An expression as Python."""
        match node:
            case nodes.Const():
                return repr(node.value)
            case nodes.TemplateData():
                return repr(node.data)
            case nodes.Name():
                return self._name(node.name)
            case nodes.Getattr():
                return self._attribute(node)
            case nodes.Getitem():
                return f"{self.expression(node.node)}[{self.expression(node.arg)}]"
            case nodes.Slice():
                parts = (node.start, node.stop, node.step)
                return ":".join("" if part is None else self.expression(part) for part in parts)
            case nodes.Compare():
                ops = [f"{_COMPARED[op.op]} {self.expression(op.expr)}" for op in node.ops]
                return f"({' '.join([self.expression(node.expr), *ops])})"
            case nodes.BinExpr() if type(node) in _BINARY:
                return f"({self.expression(node.left)} {_BINARY[type(node)]} {self.expression(node.right)})"
            case nodes.Not():
                return f"(not {self.expression(node.node)})"
            case nodes.Neg():
                return f"(-{self.expression(node.node)})"
            case nodes.Concat():
                return f"({' + '.join(f'str({self.expression(part)})' for part in node.nodes)})"
            case nodes.CondExpr() if node.expr2 is not None:
                one, test, other = (self.expression(part) for part in (node.expr1, node.test, node.expr2))
                return f"({one} if {test} else {other})"
            case nodes.List() | nodes.Tuple():
                return f"[{', '.join(self.expression(item) for item in node.items)}]"
            case nodes.Filter() if node.node is not None:
                return self._filter(node)
            case nodes.Call():
                return self._call(node)
            case _:
                raise _unknown(node)

    def _name(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        if name == "loop":
            raise NotStandalone("the variable loop other than as loop.index, index0, first, last or length")
        return f"v[{name!r}]"

    def _attribute(self, node: nodes.Getattr) -> str:
        if isinstance(node.node, nodes.Name) and node.node.name == "loop" and self._loops:
            if node.attr not in _LOOP:
                raise NotStandalone(f"loop.{node.attr}")
            return _LOOP[node.attr].format(*self._loops[-1])
        # Variables are JSON data: a dotted name is a member.
        return f"{self.expression(node.node)}[{node.attr!r}]"

    def _filter(self, node: nodes.Filter) -> str:
        assert node.node is not None
        subject = self.expression(node.node)
        arguments = [self.expression(argument) for argument in node.args]
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise NotStandalone(f"named arguments of the filter {node.name}")
        if node.name == "join" and len(arguments) <= 1:
            return f"({arguments[0] if arguments else repr('')}).join(str(one) for one in {subject})"
        if node.name == "replace" and len(arguments) == 2:
            return f"str({subject}).replace({', '.join(arguments)})"
        if node.name in _FILTERS and not arguments:
            return _FILTERS[node.name].format(subject)
        raise NotStandalone(f"the filter {node.name}{' with arguments' if arguments else ''}")

    def _call(self, node: nodes.Call) -> str:
        if isinstance(node.node, nodes.Name) and node.node.name == "range" and not node.kwargs:
            return f"range({', '.join(self.expression(argument) for argument in node.args)})"
        raise NotStandalone("a call other than range(...)")


def _unknown(node: nodes.Node) -> NotStandalone:
    return NotStandalone(f"the template construct {type(node).__name__}")
