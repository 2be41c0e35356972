"""A three-stage task and tiny models trained for it, so that every study can run on a CPU with nothing downloaded."""

from __future__ import annotations

from env.embedded.checkpoints import CHECKPOINT_NAMES, CRITIC_NAME, MODEL_NAMES, VERIFIER_NAME, checkpoint_path
from env.embedded.ledger import DIFFICULTIES, Difficulty, ledger_examples
from env.embedded.prompts import (
    CRITIC_PROMPTS,
    PROMPTS,
    TEMPERATURE,
    parse_ids,
    parse_ledger,
    parse_number,
    parse_verdict,
)
from env.embedded.vocabulary import STAGES

__all__ = [
    "CHECKPOINT_NAMES",
    "CRITIC_NAME",
    "CRITIC_PROMPTS",
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
    "parse_verdict",
]
