"""Serves HF-format checkpoints on torch, in this process or as an OpenAI-compatible HTTP server.

The names below are loaded when first used, so that importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from env.engine.config import LlamaConfig, checkpoint_revision, read_config

if TYPE_CHECKING:
    from env.engine.engine import Engine
    from env.engine.server import create_engine_app, serve

__all__ = ["Engine", "LlamaConfig", "checkpoint_revision", "create_engine_app", "read_config", "serve"]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from env.engine.engine import Engine

        return Engine
    if name in ("create_engine_app", "serve"):
        from env.engine import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
