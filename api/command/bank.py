"""``apportion bank``: what the sample bank holds, what of it may go, and a copy for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from api.command import output
from api.command.options import AsJson, Home
from api.command.session import opened_archive, settings_for
from env.errors import ApportionError
from planner.archive.texts import TextPolicy
from planner.archive.upkeep import BankStats, Selection, Upkeep

app = typer.Typer(no_args_is_help=True, help="The sample bank: what it holds, pruning and export.")


@app.command()
def stats(home: Home = None, json: AsJson = False) -> None:
    """Show how many draws the bank holds, of which models, and what they take."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        found = Upkeep(archive.engine).stats(archive.bank.text_policy)
        output.print_json(found) if json else _show(found, archive.place)


@app.command()
def policy(
    texts: Annotated[str | None, typer.Argument(help="full, hash or days:N; without it, the policy is shown.")] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Show or set how long texts are kept; answers, hashes and token counts stay in any case.

    The policy is applied whenever a study ends, and by prune.
    """
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        if texts is not None:
            archive.bank.set_text_policy(TextPolicy.parse(texts))
        now = str(archive.bank.text_policy)
        output.print_json({"text_policy": now}) if json else output.out.print(f"texts: {now}", highlight=False)


@app.command()
def prune(
    older_than: Annotated[float | None, typer.Option(min=0, help="Days since the draw was made.")] = None,
    model: Annotated[str | None, typer.Option(help="Only draws of this model.")] = None,
    study: Annotated[str | None, typer.Option(help="Only draws this study asked for first.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would go.")] = False,
    force: Annotated[bool, typer.Option(help="Also draws that plans and unfinished studies stand on.")] = False,
    vacuum: Annotated[bool, typer.Option(help="Give the space back to the disk afterwards.")] = True,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Remove draws that match all that is given, and texts that the policy no longer allows."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        study_id = archive.studies.find(study).id if study is not None else None
        selection = Selection(older_than, model, study_id)
        if force and selection.empty:
            raise ApportionError("--force needs to know which draws: give --older-than, --model or --study")
        upkeep, texts = Upkeep(archive.engine), archive.bank.text_policy
        with _bar("prompts", quiet=json) as tick:
            pruned = upkeep.prune(selection, texts, dry_run=not yes, force=force, tick=tick)
        before, after = upkeep.compact() if yes and vacuum else (None, None)
        if json:
            output.print_json({"dry_run": not yes, "pruned": pruned, "bytes_before": before, "bytes_after": after})
            return
        verb = "removed" if yes else "would remove"
        output.out.print(
            f"{verb} {pruned.draws:,} draws; {pruned.protected:,} more match, but a plan or an unfinished study stands "
            f"on them. Texts whose draws stay: {pruned.texts_dropped:,} (policy {texts})",
            highlight=False,
        )
        if before is not None and after is not None:
            output.out.print(f"archive: {_size(before)} before, {_size(after)} after", highlight=False)
        if not yes:
            output.out.print("Nothing was changed; add --yes to do it.", highlight=False)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    model: Annotated[str | None, typer.Option(help="Only draws of this model.")] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Write the draws to a Parquet file; its columns are described in its schema and in design note 0003."""
    from planner.archive.export import export_draws

    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        with _bar("draws", quiet=json) as tick:
            written = export_draws(archive.engine, out, model, tick)
        if json:
            output.print_json({"file": out, "draws": written, "bytes": out.stat().st_size})
        else:
            output.out.print(f"Wrote {written:,} draws to {out} ({_size(out.stat().st_size)})", highlight=False)


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, and what to tell it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, transient=True, disable=quiet) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show(found: BankStats, place: str) -> None:
    table = Table("model", "draws", title=f"Sample bank of {place}")
    for name, draws in found.models.items():
        table.add_row(name, f"{draws:,}")
    output.out.print(table)
    output.out.print(
        f"{found.draws:,} draws of {found.prompts:,} prompts; {found.texts:,} distinct texts, {found.texts_dropped:,} "
        f"of them dropped, {_size(found.text_bytes)} kept (policy {found.text_policy}); {found.answers:,} answers; "
        f"archive {_size(found.database_bytes)}",
        highlight=False,
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
