"""``apportion settings``: every setting with its value, where that comes from, and what it means."""

from __future__ import annotations

from rich.table import Table

from api.command import output
from api.command.options import AsJson, Home
from api.command.session import settings_for
from api.settings import listed_settings


def settings(home: Home = None, json: AsJson = False) -> None:
    """List every setting with its value, where it comes from and what it means; secrets are not shown."""
    listed = listed_settings(settings_for(home))
    if json:
        output.print_json(listed)
        return
    table = Table("setting", "value", "from", "meaning", box=None, show_edge=False)
    for one in listed:
        table.add_row(f"APPORTION_{one.name.upper()}", one.value, one.origin, one.description)
    output.out.print(table)
