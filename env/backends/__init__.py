"""Talks to models: one interface over the OpenAI protocol and the in-process torch engine."""

from env.backends._base import (
    Backend,
    Draw,
    DrawRequest,
    Failed,
    Message,
    ModelIdentity,
    Sampling,
    ScoreRequest,
    Settled,
)
from env.backends.openai_backend import OpenAIBackend
from env.backends.torch_backend import TorchBackend

__all__ = [
    "Backend",
    "Draw",
    "DrawRequest",
    "Failed",
    "Message",
    "ModelIdentity",
    "OpenAIBackend",
    "Sampling",
    "ScoreRequest",
    "Settled",
    "TorchBackend",
]
