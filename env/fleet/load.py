"""Reads a fleet file and finds the checkpoints it names."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from env.errors import CheckpointError
from env.fleet.errors import FleetError
from env.fleet.spec import FleetModelSpec, FleetSpec
from env.fleet.variants import base_name, variant_of
from env.spec.checkpoints import EMBEDDED
from env.spec.faults import faults_of

FLEET_VARIABLE = "APPORTION_FLEET"
"""Environment variable with the path of the operator's fleet file."""


@dataclass(frozen=True)
class FleetFile:
    """A checked fleet file and where it lies, which relative paths start from."""

    spec: FleetSpec
    path: Path

    @property
    def folder(self) -> Path:
        """Where logs and state go."""
        return (self.path.parent / self.spec.folder).resolve()

    @property
    def executable(self) -> tuple[str, ...]:
        """The start of every server's command line."""
        if self.spec.executable:
            return self.spec.executable
        return ("vllm",) if self.spec.engine == "vllm" else (sys.executable, "-m", "api.command")

    @property
    def api_key(self) -> str | None:
        """The token servers ask for.

        Raises:
            FleetError: the file names a variable that is not set.
        """
        name = self.spec.api_key_env
        if name is None:
            return None
        if not os.environ.get(name):
            raise FleetError(f"{self.path}: the environment variable {name} (api_key_env) is not set")
        return os.environ[name]

    def model(self, name: str) -> FleetModelSpec:
        """A model by its name, or a variant of one by name and knobs (``s@fp8``).

        Raises:
            FleetError: there is none of that name.
        """
        if base_name(name) not in self.spec.models:
            raise FleetError(f"{self.path} has no model {name!r}; there are {', '.join(self.spec.models)}")
        return variant_of(self.spec.models, name)

    def checkpoint(self, name: str) -> Path | None:
        """The local folder of a model's checkpoint; None where only its repository's name is known.

        Raises:
            FleetError: the file names a folder or embedded model that does not exist.
        """
        wanted = self.model(name).checkpoint
        if wanted.startswith(EMBEDDED):
            from env.spec.checkpoints import resolve_checkpoint

            try:
                return resolve_checkpoint(wanted)
            except CheckpointError as error:
                raise FleetError(f"{self.path}: models.{name}.checkpoint: {error}") from error
        folder = (self.path.parent / Path(wanted).expanduser()).resolve()
        if (folder / "config.json").is_file():
            return folder
        if wanted.count("/") == 1 and not wanted.startswith((".", "/", "~")):
            return _cached(wanted)
        raise FleetError(
            f"{self.path}: models.{name}.checkpoint: no config.json in {folder}; name a folder in Hugging Face format, "
            "embedded:<name>, or a repository as owner/name"
        )


def load_fleet(path: Path) -> FleetFile:
    """Read and check a fleet file.

    Args:
        path: ``.yaml`` or ``.json``.

    Raises:
        FleetError: with every fault found.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FleetError(f"cannot read the fleet file {path}: {error}") from error
    return fleet_of(raw, path)


def fleet_of(raw: Any, path: Path) -> FleetFile:
    """Check plain data.

    Args:
        raw: what the file holds.
        path: where it lies or would lie.

    Raises:
        FleetError: with every fault found.
    """
    if not isinstance(raw, dict):
        raise FleetError(f"{path}: a fleet file is an object with at least `models`")
    try:
        return FleetFile(FleetSpec.model_validate(raw), path.resolve())
    except ValidationError as error:
        faults = "\n".join(f"  {fault}" for fault in faults_of(error))
        raise FleetError(f"the fleet file {path} is not usable:\n{faults}") from error


def configured_fleet() -> FleetFile:
    """The fleet file that the operator set for this process.

    Raises:
        FleetError: none is set, or it is not usable.
    """
    value = os.environ.get(FLEET_VARIABLE)
    if not value:
        raise FleetError(f"a model with backend fleet needs {FLEET_VARIABLE}: set it to the path of a fleet file")
    return load_fleet(Path(value))


def _cached(repository: str) -> Path | None:
    """Folder of a repository in the local Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json")
    return Path(found).parent if isinstance(found, str) else None
