"""Access tokens from the command line: made and shown once, listed, revoked."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import typer
from rich.table import Table

from api.command import output
from api.command.options import AsJson, Home
from api.command.session import noted, opened_archive, settings_for
from planner.archive import TokenRecord

app = typer.Typer(no_args_is_help=True, help="Access tokens, for a service that others than this machine can reach.")

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="For lists and the audit log; unique.")],
    scope: Annotated[
        Literal["read", "submit", "admin"],
        typer.Option(help="read: look. submit: also start and stop. admin: also delete, and manage the service."),
    ] = "read",
    expires: Annotated[str | None, typer.Option(help="Lifetime such as 12h, 30d or 8w; for ever by default.")] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Make a token and print it; it is not kept and cannot be shown again."""
    lifetime = None if expires is None else _lifetime(expires)
    with (
        output.explained_errors(),
        opened_archive(settings_for(home)) as archive,
        noted(archive, "token create", f"{name} ({scope})"),
    ):
        made = archive.tokens.create(name, scope, lifetime)
    if json:
        output.print_json({**asdict(made.record), "token": made.text})
        return
    until = (
        "never expires" if made.record.expires_at is None else f"expires {made.record.expires_at:%Y-%m-%d %H:%M} UTC"
    )
    output.err.print(f"Token {name} of scope {scope} ({until}). Keep it now: it is not shown again.", highlight=False)
    typer.echo(made.text)


@app.command("list")
def list_tokens(home: Home = None, json: AsJson = False) -> None:
    """List tokens with their use; never what they are."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        listed = archive.tokens.list()
    if json:
        output.print_json(listed)
        return
    table = Table("name", "id", "scope", "state", "created", "expires", "last used", box=None)
    for token in listed:
        moments = (token.created_at, token.expires_at, token.last_used_at)
        table.add_row(token.name, token.id, token.scope, _state(token), *(_moment(at) for at in moments))
    output.out.print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="A token's name or id.")], home: Home = None, json: AsJson = False
) -> None:
    """End a token at once, and with it the browser sessions opened by it."""
    with (
        output.explained_errors(),
        opened_archive(settings_for(home)) as archive,
        noted(archive, "token revoke", name),
    ):
        token = archive.tokens.revoke(name)
    output.print_json(token) if json else output.out.print(f"token {token.name} is revoked", highlight=False)


def _lifetime(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if found is None:
        raise typer.BadParameter("a lifetime is a number with m, h, d or w, such as 30d", param_hint="--expires")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


def _state(token: TokenRecord) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "live" if token.lives(datetime.now(UTC)) else "expired"


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
