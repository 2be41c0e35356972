"""``apportion audit``: who changed what, when and from where."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from api.command import output
from api.command.options import AsJson, Home
from api.command.session import opened_archive, settings_for


def audit(
    home: Home = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most entries to print.")] = 50,
    before: Annotated[int | None, typer.Option(help="Only entries before this number.")] = None,
    who: Annotated[str | None, typer.Option(help="Only changes by this token or user.")] = None,
    json: AsJson = False,
) -> None:
    """List changes, newest first: who asked for what, when, from where, and what came of it."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        entries = archive.audit.list(limit, before, {} if who is None else {"who": who})
    if json:
        output.print_json(entries)
        return
    table = Table("no", "when (UTC)", "who", "known by", "from", "what", "result", box=None)
    for one in entries:
        when = f"{one.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one.id), when, one.who, one.kind, one.source, f"{one.action} {one.subject}", one.result)
    output.out.print(table)
