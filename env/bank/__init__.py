"""Keeps draws by content, so that asking for more generates only the missing ones."""

from env.bank._base import PromptKey, SampleBank, draw_key, score_key
from env.bank.memory import MemorySampleBank

__all__ = ["MemorySampleBank", "PromptKey", "SampleBank", "draw_key", "score_key"]
