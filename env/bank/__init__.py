"""Keeps draws by content, so that asking for more generates only the missing ones."""

from env.bank._base import AnswerBank, ParserKey, PromptKey, SampleBank, draw_key, parser_key, score_key
from env.bank.memory import MemorySampleBank

__all__ = [
    "AnswerBank",
    "MemorySampleBank",
    "ParserKey",
    "PromptKey",
    "SampleBank",
    "draw_key",
    "parser_key",
    "score_key",
]
