"""Opens a backend for each model of a pipeline when it is first needed, and closes them all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, assert_never

from env.backends._base import Backend
from env.errors import BackendError
from env.spec.checkpoints import resolve_checkpoint
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, OpenAIModel, ReplayModel, ServedModel, TorchModel


class Backends(Protocol):
    """Backends by model name."""

    def backend(self, model: str) -> Backend:
        """The backend that serves a model; KeyError for an unknown name."""
        ...


class BackendPool:
    """The backends of a pipeline's models, opened lazily; torch engines of one process share their weights."""

    def __init__(self, models: Mapping[str, ModelSpec], tenant: str = "") -> None:
        """Nothing is opened yet.

        Args:
            models: by name.
            tenant: whose pool it is, such as a study's id: tenants that share a server are served in turn.
        """
        self._models = dict(models)
        self._tenant = tenant
        self._open: dict[str, Backend] = {}

    def backend(self, model: str) -> Backend:
        """See `Backends.backend`."""
        if model not in self._open:
            spec = self._models[model]
            if isinstance(spec, JudgeModel):
                from env.backends.judge_backend import JudgeBackend

                self._open[model] = JudgeBackend(self.backend(spec.model), spec, model)
            else:
                self._open[model] = _open(spec, self._tenant)
        return self._open[model]

    def serve_as(self, model: str, variant: str) -> None:
        """Serve a fleet's model by a variant of it that answers alike.

        Raises:
            KeyError: there is no such model.
            BackendError: it was asked already, as another one.
        """
        spec = self._models[model]
        if not isinstance(spec, FleetModel):
            raise BackendError(f"{model} is no model of a fleet, so it has no variants")
        if spec.model == variant:
            return
        if model in self._open:
            raise BackendError(f"{model} is served as {spec.model} already; choose its variant before it is asked")
        self._models[model] = spec.model_copy(update={"model": variant})

    @property
    def load_seconds(self) -> float:
        """How long calls so far waited for model servers to load: time that is no inference."""
        return sum(getattr(backend, "load_seconds", 0.0) for backend in self._open.values())

    async def close(self) -> None:
        """Close every backend that was opened."""
        while self._open:
            _, backend = self._open.popitem()
            await backend.close()


def _open(spec: ServedModel, tenant: str) -> Backend:
    # Imported here: torch takes seconds and openai some tenths of one; a study pays only for what it uses.
    match spec:
        case TorchModel():
            from env.backends.torch_backend import TorchBackend

            return TorchBackend(resolve_checkpoint(spec.checkpoint), device=spec.device)
        case OpenAIModel():
            from env.backends.openai_backend import OpenAIBackend
            from env.backends.openai_dialect import Dialect
            from env.egress import current

            egress = current()
            if spec.api_key_env:
                egress.check_key(spec.api_key_env, spec.base_url)
            return OpenAIBackend(
                base_url=spec.base_url,
                model=spec.model,
                revision=spec.revision,
                api_key=os.environ.get(spec.api_key_env) if spec.api_key_env else None,
                timeout_s=spec.timeout_s,
                max_retries=spec.max_retries,
                concurrency=spec.concurrency,
                dialect=Dialect(
                    spec.api, spec.label, spec.scores, spec.continues, spec.missing_usage, spec.rewards, spec.steps
                ),
                tenant=tenant,
                egress=egress,
            )
        case ReplayModel():
            from env.backends.replay_backend import ReplayBackend
            from env.backends.replay_pool import open_pool
            from env.tasks.data import confined

            return ReplayBackend(open_pool(confined(spec.path)), spec.model)
        case FleetModel():
            from env.fleet.backend import FleetBackend
            from env.fleet.load import configured_fleet

            return FleetBackend(configured_fleet(), spec)
        case _:  # pragma: no cover
            assert_never(spec)
