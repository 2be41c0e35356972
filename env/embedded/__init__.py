"""A three-stage task and tiny models trained for it, so that every study can run on a CPU with nothing downloaded."""

from __future__ import annotations

from env.embedded.checkpoints import MODEL_NAMES, VERIFIER_NAME, checkpoint_path
from env.embedded.ledger import DIFFICULTIES, Difficulty, ledger_examples
from env.embedded.prompts import PROMPTS, TEMPERATURE, parse_ids, parse_ledger, parse_number
from env.embedded.vocabulary import STAGES

__all__ = [
    "DIFFICULTIES",
    "MODEL_NAMES",
    "PROMPTS",
    "STAGES",
    "TEMPERATURE",
    "VERIFIER_NAME",
    "Difficulty",
    "checkpoint_path",
    "ledger_examples",
    "parse_ids",
    "parse_ledger",
    "parse_number",
]
