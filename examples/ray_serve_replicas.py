"""Replicas of a checkpoint behind one OpenAI-compatible URL, on Ray Serve: the way past one machine.

    pip install 'ray[serve]'
    REPLICAS=4 serve run examples.ray_serve_replicas:app

A study uses it as any server: `{backend: openai, base_url: http://HOST:8000/v1, model: s, parameters: ...}`.
On a cluster Ray spreads the replicas over its machines; each draw depends on prompt, seed and index only, so it does
not matter which replica answers. For vLLM on GPUs see ray-serve-vllm.yaml.
"""

from __future__ import annotations

import os

from ray import serve

CHECKPOINTS = os.environ.get("CHECKPOINTS", "embedded:s").split(",")
DEVICE = os.environ.get("DEVICE", "cpu")


def engine_app():
    """The torch engine's OpenAI application; called in every replica."""
    from env.engine import Engine, create_engine_app
    from env.spec.checkpoints import resolve_checkpoint

    folders = [resolve_checkpoint(name) for name in CHECKPOINTS]
    return create_engine_app({folder.name: Engine(folder, DEVICE) for folder in folders})


@serve.deployment(
    num_replicas=int(os.environ.get("REPLICAS", "2")),
    max_ongoing_requests=256,  # the engine batches what arrives together
    ray_actor_options={"num_cpus": 1, "num_gpus": 1 if DEVICE == "cuda" else 0},
)
@serve.ingress(engine_app)
class Replica:
    """One engine."""


app = Replica.bind()
