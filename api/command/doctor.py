"""Finds the usual troubles before they cost an hour."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from api.settings import Settings
from env.errors import ApportionError
from env.spec.study import ProposerSpec
from planner.archive import current_revision, head_revision, open_archive

LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    level: Literal["ok", "note", "trouble"]
    subject: str
    message: str


def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look at Python, torch, the embedded models, the archive, the disk and the agent's LLM."""
    return [_python(), _torch(), _models(), _archive(settings), _disk(settings), _llm(environ)]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("ok", "python", found)
    return Finding("trouble", "python", f"{found} is not supported; use 3.11 to 3.13")


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("ok", "torch", f"{torch.__version__}, CUDA: {torch.cuda.get_device_name(0)}")
    return Finding("ok", "torch", f"{torch.__version__}, CPU with {torch.get_num_threads()} threads (no CUDA device)")


def _models() -> Finding:
    from env.embedded import CHECKPOINT_NAMES, checkpoint_path

    try:
        for name in CHECKPOINT_NAMES:
            checkpoint_path(name)
    except ApportionError as error:
        return Finding("trouble", "embedded models", str(error))
    return Finding("ok", "embedded models", ", ".join(CHECKPOINT_NAMES))


def _archive(settings: Settings) -> Finding:
    try:
        archive = open_archive(settings.archive_url)
    except ApportionError as error:
        return Finding("trouble", "archive", str(error))
    try:
        revision = current_revision(archive.engine)
        return Finding("ok", "archive", f"{archive.place}, schema {revision} (newest {head_revision()})")
    finally:
        archive.close()


def _disk(settings: Settings) -> Finding:
    folder = settings.home.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free < LEAST_FREE_BYTES:
        return Finding("trouble", "disk", f"{text}; an archive of a large study needs more, free some")
    return Finding("ok", "disk", text)


def _llm(environ: Mapping[str, str]) -> Finding:
    from planner.proposers.agent import resolve_llm

    llm = resolve_llm(ProposerSpec(), environ)
    if llm is None:
        return Finding(
            "note",
            "agent",
            "no LLM is configured, so studies use the insight policy; set APPORTION_LLM_MODEL "
            "(and APPORTION_LLM_BASE_URL, OPENAI_API_KEY) for the agent",
        )
    return Finding("ok", "agent", f"{llm.model} at {llm.base_url or 'the default address of the openai client'}")
