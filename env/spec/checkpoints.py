"""Where a spec's checkpoint lies: an embedded model by name, or a folder below the data root."""

from __future__ import annotations

from pathlib import Path

from env.errors import CheckpointError

EMBEDDED = "embedded:"


def resolve_checkpoint(name: str) -> Path:
    """Folder of a checkpoint.

    Args:
        name: ``embedded:<model>``, or a path below the data root.

    Raises:
        CheckpointError: no such embedded model, outside the data root, or no such folder.
    """
    # Imported here because data loading itself reads specs.
    from env.embedded import CHECKPOINT_NAMES, checkpoint_path
    from env.tasks.data import DataError, confined

    if name.startswith(EMBEDDED):
        wanted = name.removeprefix(EMBEDDED)
        if wanted not in CHECKPOINT_NAMES:
            raise CheckpointError(f"no embedded model {wanted!r}; there are {', '.join(CHECKPOINT_NAMES)}")
        return checkpoint_path(wanted)
    try:
        path = confined(name)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{name!r}: no folder with a config.json there (looked in {path})")
    return path
