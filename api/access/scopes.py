"""What each request needs: the one place where it is stated. Whatever is not listed here falls under its method.

A route may ask for more with ``Depends(needing("admin"))``; it can never ask for less.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from api.access.callers import Caller
from api.problems import Refused
from planner.archive import AccessScope

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
Need = Literal["nothing"] | AccessScope
_RANKS: dict[str, int] = {"nothing": 0, "read": 1, "submit": 2, "admin": 3}


@dataclass(frozen=True)
class Rule:
    """What requests to some paths need."""

    path: re.Pattern[str]
    """Of the whole path."""

    need: Need
    methods: frozenset[str] | None = None
    """None: every method."""

    changes: bool = True
    """Whether an unsafe method changes something, so that it enters the audit log."""

    limited: bool = True
    """Whether it counts against a caller's rate."""


def _rule(path: str, need: Need, *methods: str, changes: bool = True, limited: bool = True) -> Rule:
    return Rule(re.compile(path), need, frozenset(methods) or None, changes, limited)


RULES: tuple[Rule, ...] = (
    # Open to everybody: whether the process lives, the way in, and files that are in the public package anyway.
    _rule(r"/healthz", "nothing", *SAFE_METHODS, limited=False),
    _rule(r"/login", "nothing"),
    _rule(r"/static/.*", "nothing", *SAFE_METHODS),
    # Leaving needs no more than having come in.
    _rule(r"/logout", "read"),
    # Asked by POST because a spec is long; nothing is changed.
    _rule(r"/api/v1/spec/check", "read", changes=False),
    _rule(r"/api/v1/estimate", "read", changes=False),
    # Served plans spend model time; they leave the archive as it is.
    _rule(r"/v1/.*", "submit", "POST", changes=False),
    # Who may do what, who did what, and how the service is set.
    _rule(r"/api/v1/(tokens|audit|settings)(/.*)?", "admin"),
    _rule(r"/(tokens|audit|settings)(/.*)?", "admin"),
    # What others may have made goes for good; forms of pages cannot send DELETE.
    _rule(r"/.*", "admin", "DELETE"),
    _rule(r"/.*/delete", "admin", "POST"),
)


_STREAM = re.compile(r"/api/v1/(.*/)?events")


def is_stream(method: str, path: str) -> bool:
    """Whether a request opens an event stream, which stays open for as long as it is read."""
    return method == "GET" and _STREAM.fullmatch(path) is not None


def rule_for(method: str, path: str) -> Rule:
    """The first rule that fits a request; by its method where none does: safe ones need read, others submit."""
    for rule in RULES:
        if (rule.methods is None or method in rule.methods) and rule.path.fullmatch(path):
            return rule
    return Rule(re.compile(".*"), "read" if method in SAFE_METHODS else "submit")


def suffices(held: Need, need: Need) -> bool:
    """Whether a scope includes what is needed."""
    return _RANKS[held] >= _RANKS[need]


def needing(need: AccessScope) -> Callable[[Request], Caller]:
    """A dependency of routes that need more than their method says.

    Raises:
        Refused: (when called) the caller's scope does not suffice.
    """

    def caller(request: Request) -> Caller:
        found: Caller = request.state.caller
        if not suffices(found.scope, need):
            raise Refused(403, scope_refusal(found, need))
        return found

    return caller


def scope_refusal(caller: Caller, need: Need) -> str:
    """Why a caller may not do something, and what to do about it."""
    return f"{caller.name} may {caller.scope} only and this needs {need}: use a token of scope {need}"
