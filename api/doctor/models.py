"""The models: embedded checkpoints, vLLM and the agent's LLM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from api.doctor.findings import Finding, note, ok, trouble
from env.errors import ApportionError
from env.spec.study import ProposerSpec

PATIENCE_S = 5.0
LEAST_SHARED_MEMORY = 1 << 30
"""vLLM's processes talk through /dev/shm; containers often have 64 MiB of it."""


def embedded() -> Finding:
    """Whether the checkpoints of the demo are there."""
    from env.embedded import CHECKPOINT_NAMES, checkpoint_path

    try:
        for name in CHECKPOINT_NAMES:
            checkpoint_path(name)
    except ApportionError as error:
        return trouble("embedded models", str(error))
    return ok("embedded models", ", ".join(CHECKPOINT_NAMES))


def vllm() -> Finding:
    """Whether `vllm serve` can be started, and has the shared memory it needs."""
    beside = Path(sys.executable).with_name("vllm")
    command = str(beside) if beside.exists() else shutil.which("vllm")
    if command is None:
        return note("vllm", "not installed here: a fleet needs pip install 'apportion[vllm]' on a GPU machine, or URLs")
    try:
        told = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return trouble("vllm", f"{command} does not answer ({error}); install it again")
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["no message"])[-1]
        return trouble("vllm", f"{command} fails: {last[:200]}; install it again")
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    version = (told.stdout.strip().splitlines() or ["unknown version"])[-1]
    if shared < LEAST_SHARED_MEMORY:
        return note(
            "vllm", f"{version}; /dev/shm has {shared >> 20} MiB, give the container --shm-size=8g or --ipc=host"
        )
    return ok("vllm", version)


def llm(environ: Mapping[str, str]) -> Finding:
    """Which LLM the agent asks, and whether its server answers and takes the key; generates nothing."""
    from planner.proposers.agent import resolve_llm

    found = resolve_llm(ProposerSpec(), environ)
    if found is None:
        return note(
            "agent",
            "no LLM is configured, so studies use the insight policy; set APPORTION_LLM_MODEL "
            "(and APPORTION_LLM_BASE_URL, OPENAI_API_KEY) for the agent",
        )
    if found.base_url is None:
        return ok("agent", f"{found.model} at the default address of the openai client (not asked)")
    place = f"{found.model} at {found.base_url}"
    try:
        headers = {"authorization": f"Bearer {found.api_key}"}
        answer = httpx.get(f"{found.base_url.rstrip('/')}/models", headers=headers, timeout=PATIENCE_S)
    except httpx.HTTPError as error:
        return trouble("agent", f"{place} does not answer ({type(error).__name__}); start it or correct the address")
    if answer.status_code in (401, 403):
        return trouble("agent", f"{place} refuses the key (HTTP {answer.status_code}); set OPENAI_API_KEY")
    return _listed(answer, found.model, place)


def _listed(answer: httpx.Response, model: str, place: str) -> Finding:
    try:
        names = [str(item["id"]) for item in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return note(
            "agent", f"{place} answers, but lists no models (HTTP {answer.status_code}); the name is not checked"
        )
    if model not in names:
        return trouble(
            "agent", f"{place}: the server has {', '.join(names[:5]) or 'no models'}; set APPORTION_LLM_MODEL"
        )
    return ok("agent", f"{place} answers")
