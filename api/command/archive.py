"""``apportion archive``: its state, migration, backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.command import output
from api.command.options import AsJson, Home
from api.command.session import opened_archive, settings_for
from api.housekeeping import retention_of
from api.settings import Settings
from env.errors import ApportionError
from planner.archive import current_revision, head_revision, migrate, open_engine
from planner.archive.connection import label
from planner.archive.retention import Retention, RetentionRuns
from planner.archive.totals import ArchiveTotals
from planner.backup import Place, back_up
from planner.backup import restore as put_back

app = typer.Typer(no_args_is_help=True, help="The archive: its state, migration, backup and restore.")


@app.command()
def status(home: Home = None, json: AsJson = False) -> None:
    """Show where the archive is, its schema and what it holds; changes nothing."""
    with output.explained_errors():
        engine = open_engine(settings_for(home).archive_url)
        try:
            current, newest = current_revision(engine), head_revision()
            totals = ArchiveTotals(engine).read() if current == newest else None
        finally:
            engine.dispose()
        place = label(engine.url)
        studies = dict(totals.studies) if totals else None
        trials = sum(totals.trials.values()) if totals else None
        if json:
            told = {"place": place, "schema": current, "newest": newest, "studies": studies, "trials": trials}
            output.print_json(told)
            return
        output.out.print(f"{place}: schema {current or 'none yet'} (newest {newest})", highlight=False)
        if studies is None:
            output.out.print("Run `apportion archive migrate` to bring it to the newest.", highlight=False)
        else:
            listed = ", ".join(f"{count} {name}" for name, count in sorted(studies.items())) or "none"
            output.out.print(f"studies: {listed}; trials: {trials:,}", highlight=False)


@app.command("migrate")
def migrate_command(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 where a migration is due.")] = False,
    home: Home = None,
) -> None:
    """Bring the archive's schema to this version's. Commands that write do so by themselves; back up first."""
    with output.explained_errors():
        engine = open_engine(settings_for(home).archive_url)
        try:
            before, newest = current_revision(engine), head_revision()
            if not check:
                migrate(engine)
        finally:
            engine.dispose()
        if before == newest:
            output.out.print(f"the archive is at {newest} already", highlight=False)
        elif check:
            output.out.print(f"the archive is at {before or 'no schema'}; {newest} is due", highlight=False)
            raise typer.Exit(1)
        else:
            output.out.print(f"migrated from {before or 'no schema'} to {newest}", highlight=False)


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="File to write, such as apportion-2026-11-24.tar.")],
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Copy archive, jobs and data sets into one file, while the service may be running."""
    with output.explained_errors():
        manifest = back_up(_place(settings_for(home)), out)
        if json:
            output.print_json({"file": out, "bytes": out.stat().st_size, **output.plain(manifest)})
        else:
            size = f"{out.stat().st_size / 1e6:,.1f} MB"
            output.out.print(f"Wrote {out} ({size}; schema {manifest.schema})", highlight=False)


@app.command()
def prune(
    studies: Annotated[
        float | None, typer.Option(min=0, help="Days since a study's end; APPORTION_KEEP_STUDIES_DAYS by default.")
    ] = None,
    events: Annotated[
        float | None, typer.Option(min=0, help="Days since an event; APPORTION_KEEP_EVENTS_DAYS by default.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would go.")] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Remove ended studies and events that are older than given; draws stay in the bank (apportion bank prune)."""
    with output.explained_errors():
        settings = settings_for(home)
        asked = retention_of(settings)
        retention = Retention(
            asked.studies_days if studies is None else studies, asked.events_days if events is None else events
        )
        if retention == Retention():
            raise ApportionError("say what may go: --studies DAYS, --events DAYS, or the settings of the same meaning")
        with opened_archive(settings) as opened:
            removed = RetentionRuns(opened).apply(retention, dry_run=not yes)
        if json:
            output.print_json({"dry_run": not yes, **output.plain(removed)})
            return
        output.out.print(
            f"{'removed' if yes else 'would remove'} {len(removed.studies)} studies and {removed.events:,} events; "
            f"{removed.protected} more studies are old enough, but a plan name or a schedule needs them",
            highlight=False,
        )
        if not yes:
            output.out.print("Nothing was changed; add --yes to do it.", highlight=False)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `apportion archive backup` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where an archive is: SQLite files are moved aside, tables replaced.")
    ] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Put a backup in place; stop the service and its workers first. Unfinished studies go on at the next start."""
    with output.explained_errors():
        manifest, aside = put_back(source, _place(settings_for(home)), force)
        if json:
            output.print_json({"restored": manifest, "moved_aside": aside})
            return
        for moved in aside:
            output.out.print(f"moved aside: {moved}", highlight=False)
        output.out.print(f"Restored the backup of {manifest.created_at} (schema {manifest.schema})", highlight=False)


def _place(settings: Settings) -> Place:
    return Place(settings.archive_url, settings.queue_url, settings.home / "datasets")
