"""Looks at everything, one subject after another; a look that fails is a finding itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from api.doctor import machine, models, service
from api.doctor.findings import Finding, trouble
from api.settings import Settings

__all__ = ["Finding", "examine"]


def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look at the machine, the service's parts and the models; changes nothing but an archive's schema.

    Args:
        settings: of the service.
        environ: where names of settings and the agent's LLM are looked up.
    """
    looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", machine.python),
        ("torch", machine.torch),
        ("time zones", machine.time_zones),
        ("open files", machine.open_files),
        ("temporary folder", machine.temporary_folder),
        ("disk", lambda: machine.disk(settings.home)),
        ("settings", lambda: service.settings_names(environ)),
        ("file system", lambda: service.file_system(settings)),
        ("archive", lambda: service.archive(settings)),
        ("jobs", lambda: service.jobs(settings)),
        ("clock", lambda: service.clock(settings)),
        ("workers", lambda: service.workers(settings)),
        ("port", lambda: service.port(settings)),
        ("embedded models", models.embedded),
        ("vllm", models.vllm),
        ("agent", lambda: models.llm(environ)),
    )
    return [_looked(subject, look) for subject, look in looks]


def _looked(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:
        # One broken part must not hide what is wrong with the others.
        return trouble(subject, f"could not be looked at: {type(error).__name__}: {error}")
