"""Plans on the command line: showing, comparing, naming."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from api.client import Client
from api.command import output
from api.command.options import AsJson, Home, Url
from api.command.session import opened_archive, settings_for
from api.routes.plans import names_of, plan_named, promote
from env.errors import ApportionError
from planner.archive import NotFound
from planner.export import export_files
from planner.plans import PlanDocument, amount
from planner.plans.wording import score
from planner.serving import plan_diff


class _ShownByDefault(TyperGroup):
    """`plan ID` shows a plan, as it did before there were other commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before what names no command."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ShownByDefault, no_args_is_help=True, help="Plans: show, list, diff, promote, export. `plan ID` shows one."
)

Plan = Annotated[
    str, typer.Argument(help="A promoted name, a study's id, its start or its name; :best behind it for the best.")
]


@app.command()
def show(
    plan: Plan,
    format: Annotated[str, typer.Option(help="yaml or json.")] = "yaml",
    kind: Annotated[str | None, typer.Option(help="chosen (cheapest within one error of the best) or best.")] = None,
    home: Home = None,
    url: Url = None,
) -> None:
    """Print a plan document."""
    if format not in ("yaml", "json") or kind not in (None, "chosen", "best"):
        raise typer.BadParameter("--format is yaml or json, --kind is chosen or best")
    with output.explained_errors():
        document = _document(plan if kind is None else f"{plan.partition(':')[0]}:{kind}", url, home)
        typer.echo(document.to_yaml() if format == "yaml" else document.model_dump_json(indent=2))


def _document(plan: str, url: str | None, home: Path | None) -> PlanDocument:
    if url:
        with Client(url) as client:
            return client.plan_named(plan)
    with opened_archive(settings_for(home)) as archive:
        return PlanDocument.model_validate(dict(plan_named(archive, plan).document))


@app.command("list")
def list_plans(
    home: Home = None,
    json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    name: Annotated[str, typer.Option(help="Part of the study's name.")] = "",
) -> None:
    """List plans, newest first, with the names that stand for them."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        names = names_of(archive)
        rows: list[dict[str, Any]] = []
        for record, study in archive.plans.page(limit, name_contains=name):
            document = PlanDocument.model_validate(dict(record.document))
            test = None if document.test_score is None else document.test_score.estimate
            rows.append(
                {
                    "plan": record.id,
                    "study": study,
                    "names": names.get(record.id, []),
                    "test_score": test,
                    "predicted_cost": document.predicted_cost,
                    "unit": document.unit,
                    "created_at": record.created_at,
                }
            )
        if json:
            output.print_json(rows)
            return
        table = Table("plan", "study", "names", "test score", "cost per query", "made")
        for row in rows:
            cost = amount(row["predicted_cost"], row["unit"])
            made = f"{row['created_at']:%Y-%m-%d %H:%M}"
            table.add_row(row["plan"], row["study"], ", ".join(row["names"]), score(row["test_score"]), cost, made)
        output.out.print(table)


@app.command()
def diff(
    before: Plan,
    after: Annotated[str, typer.Argument(help="The plan to compare with it, named in the same way.")],
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Say what changes from one plan to another: stages, score where comparable, cost."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        found = plan_diff(archive, plan_named(archive, before), plan_named(archive, after))
        if json:
            output.print_json(found.model_dump(mode="json"))
            return
        for line in found.words:
            output.out.print(line, highlight=False, markup=False)


@app.command("promote")
def promote_plan(
    plan: Plan,
    name: Annotated[str, typer.Option(help="What clients ask for: model plan:NAME.")],
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Let a name stand for a plan from now on; rolling back is promoting an earlier plan."""
    from pydantic import TypeAdapter, ValidationError

    from api.schemas.plans import PlanName

    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        try:
            TypeAdapter(PlanName).validate_python(name)
        except ValidationError:
            raise typer.BadParameter(
                "--name starts with a letter and has at most 64 letters, digits, and . _ -"
            ) from None
        record = promote(archive, name, plan, _user())
        if json:
            output.print_json(record)
        else:
            output.out.print(f"{name} stands for plan {record.plan_id}: ask model plan:{name}", highlight=False)


@app.command()
def export(
    plan: Plan,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for plan.yaml, serve.sh and plan.py.")] = Path(
        "plan"
    ),
    remote: Annotated[
        bool, typer.Option(help="Stages that plain Python cannot hold ask the plan endpoint (APPORTION_BASE_URL).")
    ] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Write a plan as files that run without this program."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        files = export_files(archive, plan_named(archive, plan), remote=remote)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (out / name).write_text(text, encoding="utf-8")
                (out / name).chmod(0o755 if name.endswith(".sh") else 0o644)
        except OSError as error:
            raise ApportionError(f"cannot write to {out}: {error.strerror or error}") from error
        written = [out / name for name in files]
        if json:
            output.print_json({"files": written})
        else:
            output.out.print(f"Wrote {', '.join(str(file) for file in written)}", highlight=False)


@app.command()
def history(
    name: Annotated[str, typer.Argument(help="A promoted name.")], home: Home = None, json: AsJson = False
) -> None:
    """Show what a name stood for, newest first."""
    with output.explained_errors(), opened_archive(settings_for(home)) as archive:
        found = archive.promotions.history(name)
        if not found:
            raise NotFound(f"no plan was promoted as {name!r}; `plan list` shows what there is")
        if json:
            output.print_json(found)
            return
        table = Table("plan", "promoted", "by")
        for record in found:
            table.add_row(record.plan_id, f"{record.promoted_at:%Y-%m-%d %H:%M:%S} UTC", record.promoted_by)
        output.out.print(table)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
