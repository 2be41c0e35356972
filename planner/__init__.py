"""Decides: the search loop, proposers, guidelines, statistics, plans and the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.run import run_study

__all__ = ["run_study"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: most of the package can be imported without the loop and its libraries.
    if name == "run_study":
        from planner.run import run_study

        return run_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
