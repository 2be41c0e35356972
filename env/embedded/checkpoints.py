"""Where the embedded checkpoints lie."""

from __future__ import annotations

from pathlib import Path

from env.errors import CheckpointError

MODEL_NAMES = ("xs", "s", "m", "l")
VERIFIER_NAME = "verifier"
CRITIC_NAME = "critic"
CHECKPOINT_NAMES = (*MODEL_NAMES, VERIFIER_NAME, CRITIC_NAME)
WEIGHTS = Path(__file__).parent / "weights"


def checkpoint_path(name: str) -> Path:
    """Folder of an embedded checkpoint in Hugging Face format.

    Args:
        name: One of `CHECKPOINT_NAMES`.

    Raises:
        CheckpointError: The name is unknown, or the installation lacks the weights.
    """
    if name not in CHECKPOINT_NAMES:
        raise CheckpointError(f"no embedded model is called {name!r}; choose one of {', '.join(CHECKPOINT_NAMES)}")
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no weights; run `python -m env.embedded.train --model {name}`")
    return folder
