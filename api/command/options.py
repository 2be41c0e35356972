"""Options that many commands take, with one meaning everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None, typer.Option("--home", help="Folder of the archive (APPORTION_HOME, default .apportion).")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="APPORTION_URL",
        help="Ask this service instead of an archive of this machine; APPORTION_TOKEN is its token.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
StudyId = Annotated[str, typer.Argument(help="A study's id, the start of it, or its name.")]
