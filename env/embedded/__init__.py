"""A three-stage task and tiny models trained for it, so that every study can run on a CPU with nothing downloaded."""

from __future__ import annotations

from env.embedded.checkpoints import MODEL_NAMES, VERIFIER_NAME, checkpoint_path
from env.embedded.ledger import DIFFICULTIES, ledger_examples

__all__ = [
    "DIFFICULTIES",
    "MODEL_NAMES",
    "VERIFIER_NAME",
    "checkpoint_path",
    "ledger_examples",
]
