"""The few errors the environment raises; every message says what to do next."""

from __future__ import annotations


class ApportionError(Exception):
    """Base of all errors that are the user's or the surroundings', not a bug of ours."""


class BackendError(ApportionError):
    """A model call failed for good: the server is down, refuses, or answers nonsense after all retries."""


class CheckpointError(ApportionError):
    """A checkpoint is missing, broken or of an architecture the torch engine does not serve."""


class TemplateError(ApportionError):
    """A prompt template is not valid or names a variable nothing supplies."""
