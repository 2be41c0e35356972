"""Data sets as scored examples, the parsers that read model outputs, and the metrics that score answers."""

from env.tasks.example import Example, JsonValue

__all__ = ["Example", "JsonValue"]
