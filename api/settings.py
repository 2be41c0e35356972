"""Settings from the environment: where the archive lives, what the service binds to and who may ask it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from api.file_settings import CONFIG_VARIABLE, FileSettings, SettingsError, config_file
from api.observing.logs import LogFormat, LogLevel
from env.secrets import HIDDEN, is_secret_name, redact, without_password

if TYPE_CHECKING:
    from planner.durable import JobSettings

PREFIX = "APPORTION_"

Names = Annotated[tuple[str, ...], NoDecode]
"""Several words in one variable, with commas between them."""


class Settings(BaseSettings):
    """Read from command-line options, then ``APPORTION_*`` variables, then ``apportion.toml`` in the home folder."""

    model_config = SettingsConfigDict(env_prefix="APPORTION_", extra="ignore")

    home: Path = Field(Path(".apportion"), description="Folder of the SQLite archive and of the job database.")
    database_url: str | None = Field(
        None, description="Archive; SQLite in the home folder by default, or postgresql://..."
    )
    jobs_url: str | None = Field(
        None, description="Job database of DBOS; beside the archive by default (on PostgreSQL the same database)."
    )
    host: str = Field("127.0.0.1", description="Address the service binds to; any but loopback needs access tokens.")
    port: int = Field(8321, ge=0, le=65535, description="Port the service binds to; 0 takes any free one.")
    allowed_hosts: Names = Field(
        (),
        description="Host names the service answers to beside loopback ones, with commas between; needs tokens.",
    )
    require_tokens: bool = Field(
        False, description="Ask for access tokens on loopback too: on a shared machine, or behind a proxy on this one."
    )
    trusted_proxies: Names = Field(
        ("127.0.0.1", "::1"), description="Addresses of proxies whose X-Forwarded-For and -Proto are believed."
    )
    session_hours: float = Field(12.0, gt=0, le=720, description="How long a browser stays logged in, in hours.")

    requests_per_minute: float = Field(
        3000,
        ge=0,
        description="Requests a minute of each token, in the long run; 0: no limit. Only where tokens are needed.",
    )
    request_burst: int = Field(300, ge=1, description="Requests that a token may send at once.")
    event_streams: int = Field(500, ge=1, description="Event streams open at once, of all callers.")
    event_streams_each: int = Field(20, ge=1, description="Event streams open at once, of one token.")
    audit_days: float = Field(365, ge=0, le=36500, description="Days that the audit log keeps a change; 0: for ever.")
    allowed_targets: Names = Field(
        (),
        description="Host names (.example.org: all below it), addresses and networks that model and webhook URLs may "
        "name beside public addresses, with commas between.",
    )
    spec_keys: Names = Field(
        (),
        description="Environment variables whose values specs may have sent as keys, as NAME or NAME@host, with commas "
        "between. Without access tokens every variable may be named.",
    )
    data_root: Path | None = Field(
        None,
        description="Folder that specs may name files in; the working directory, or the folder data in the home folder "
        "where access tokens are needed.",
    )
    upload_bytes: int = Field(256 * 1024 * 1024, gt=0, description="Largest data set that may be uploaded, in bytes.")
    upload_rows: int = Field(200_000, gt=1, description="Most rows of an uploaded data set.")
    request_threads: int = Field(
        8, ge=1, le=40, description="Requests that are worked on at once; the others wait for their turn."
    )

    log_format: LogFormat = Field("text", description="`text` for people or `json`, one object a line, for collectors.")
    log_level: LogLevel = Field("info", description="The least that is logged of the service's own doings.")
    otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector that gets traces over HTTP, such as http://127.0.0.1:4318; off."
    )
    keep_studies_days: float | None = Field(
        None, gt=0, description="Days after which ended studies go, unless a plan name or a schedule needs them; never."
    )
    keep_events_days: float | None = Field(
        None, gt=0, description="Days after which events of ended studies go that repeat what tables hold; never."
    )
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port on which `apportion worker` answers Prometheus, on the host; off."
    )

    worker_concurrency: int | None = Field(
        None, ge=1, description="Studies of one queue that a worker runs at a time; 1 unless set once for all workers."
    )
    global_concurrency: int | None = Field(
        None, ge=1, description="Studies of the plain queue that all workers run at a time; no limit unless set once."
    )
    fleet_concurrency: int | None = Field(
        None, ge=1, description="Studies on one fleet that all workers run at a time; 1 unless set once."
    )
    queues: Names = Field((), description="Queues this process takes studies from, with commas between; all of them.")
    dead_seconds: float = Field(
        5.0, ge=3, le=600, description="Silence in seconds after which another worker takes a worker's studies over."
    )
    shutdown_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds that a study in flight has to reach its next stored draws when the process is to stop.",
    )

    fleet: Path | None = Field(None, description="The fleet file: models of this machine and how they are served.")
    llm_model: str | None = Field(None, description="The LLM of the agent, where a spec names none.")
    llm_base_url: str | None = Field(None, description="Its server; OpenAI's own by default.")
    llm_price: str | None = Field(
        None, description="Its price in dollars for a million tokens: input,output or input,output,cached input."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options, environment, file; in this order.

        Raises:
            SettingsError: the file cannot be used.
        """
        home = init_settings().get("home") or os.environ.get("APPORTION_HOME") or cls.model_fields["home"].default
        return init_settings, env_settings, FileSettings(settings_cls, Path(home))

    @field_validator("allowed_hosts", "trusted_proxies", "allowed_targets", "spec_keys", "queues", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value

    plan_queries: int = Field(16, ge=1, le=4096, description="Queries that plans answer at a time.")
    plan_queue: int = Field(64, ge=0, le=65536, description="Queries that wait for a plan; more are answered 429.")
    plan_queue_wait_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds a query waits for its turn before it is answered 503."
    )
    plan_keep_alive_s: int = Field(
        10, ge=1, le=300, description="Seconds between signs of life in a stream whose answer is not chosen yet."
    )
    plans_open: int = Field(4, ge=1, le=256, description="Studies whose models stay open between queries.")

    @property
    def jobs(self) -> JobSettings:
        """Limits and times of the jobs."""
        # Imported here: what runs studies takes seconds to import, and most commands run none.
        from planner.durable import JobSettings

        return JobSettings(
            concurrency=self.worker_concurrency,
            total=self.global_concurrency,
            fleet=self.fleet_concurrency,
            queues=self.queues,
            dead_s=self.dead_seconds,
            shutdown_s=self.shutdown_seconds,
        )

    @property
    def archive_url(self) -> str:
        """URL of the archive."""
        return self.database_url or f"sqlite:///{(self.home / 'archive.db').resolve()}"

    @property
    def queue_url(self) -> str:
        """URL of the job database."""
        if self.jobs_url:
            return self.jobs_url
        if self.database_url and not self.database_url.startswith("sqlite"):
            return self.database_url
        return f"sqlite:///{(self.home / 'jobs.db').resolve()}"


READ_ELSEWHERE = ("data_root", "fleet", "llm_model", "llm_base_url", "llm_price")
"""Settings that the environment's and the planner's code reads as variables."""


def load_settings(**options: Any) -> Settings:
    """The settings in force, put where all of the code finds them.

    Args:
        options: from the command line; those that are None do not count.

    Raises:
        SettingsError: one cannot be read or has a wrong value.
    """
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"settings with a wrong value: {redact(faults)}") from None
    except ValueError as error:
        raise SettingsError(f"a setting cannot be read: {redact(str(error))}") from None
    for name in READ_ELSEWHERE:
        value = getattr(settings, name)
        if value is not None:
            os.environ.setdefault(f"{PREFIX}{name.upper()}", str(value))
    return settings


@dataclass(frozen=True)
class ListedSetting:
    """One setting, for people."""

    name: str
    value: str
    """In force; without secrets."""

    origin: Literal["default", "file", "environment", "option"]
    description: str


def listed_settings(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[ListedSetting]:
    """Every setting by name."""
    file = config_file(settings.home)
    in_file = {} if file is None else FileSettings(Settings, settings.home)()
    listed = []
    for name, field in sorted(Settings.model_fields.items()):
        value, given = getattr(settings, name), environ.get(f"{PREFIX}{name.upper()}")
        origin: Literal["default", "file", "environment", "option"] = "default"
        if name in settings.model_fields_set:
            origin = "environment" if given is not None else "file" if name in in_file else "option"
        listed.append(ListedSetting(name, _shown(name, value), origin, field.description or ""))
    if file is not None:
        about = "The file of settings: apportion.toml in the home folder, or the one named here."
        origin = "environment" if environ.get(CONFIG_VARIABLE) else "default"
        listed.append(ListedSetting("config", str(file), origin, about))
    return listed


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if is_secret_name(f"{PREFIX}{name.upper()}") and name != "spec_keys":
        return HIDDEN
    return redact(without_password(text))
