"""What the head of every page leads to: only pages that this service has."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.routing import Match


@dataclass(frozen=True)
class NavigationEntry:
    """One link."""

    path: str
    label: str
    begins: tuple[str, ...] = ()
    """Starts of the paths that belong to it; its own where empty."""

    def holds(self, path: str) -> bool:
        """Whether a page belongs to this link."""
        return path == self.path or any(path.startswith(start) for start in self.begins)


ENTRIES = (
    NavigationEntry("/", "Studies", ("/studies/",)),
    NavigationEntry("/plans", "Plans", ("/plans/",)),
    NavigationEntry("/schedules", "Schedules", ("/schedules/",)),
    NavigationEntry("/fleet", "Fleet", ("/fleet/",)),
    NavigationEntry("/studies/new", "New study"),
    NavigationEntry("/api", "API"),
)


def navigation(request: Request) -> list[tuple[NavigationEntry, bool]]:
    """(link, whether the page belongs to it) of each page there is."""
    path = request.url.path
    current = next((e for e in ENTRIES if e.path == path), None) or next((e for e in ENTRIES if e.holds(path)), None)
    return [(entry, entry is current) for entry in ENTRIES if _served(request, entry.path)]


def _served(request: Request, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)
