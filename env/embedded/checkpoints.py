"""Where the embedded checkpoints lie."""

from __future__ import annotations

from pathlib import Path

from env.errors import CheckpointError

MODEL_NAMES = ("xs", "s", "m", "l")
VERIFIER_NAME = "verifier"
WEIGHTS = Path(__file__).parent / "weights"


def checkpoint_path(name: str) -> Path:
    """Folder of an embedded checkpoint in Hugging Face format.

    Args:
        name: One of `MODEL_NAMES`, or `VERIFIER_NAME`.

    Raises:
        CheckpointError: The name is unknown, or the installation lacks the weights.
    """
    known = (*MODEL_NAMES, VERIFIER_NAME)
    if name not in known:
        raise CheckpointError(f"no embedded model is called {name!r}; choose one of {', '.join(known)}")
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no weights; run `python -m env.embedded.train --model {name}`")
    return folder
