"""Settings from the environment: where the archive lives, what the service binds to and who may ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.observing.logs import LogFormat, LogLevel

Names = Annotated[tuple[str, ...], NoDecode]
"""Several words in one variable, with commas between them."""


class Settings(BaseSettings):
    """Read from ``APPORTION_*`` variables; command-line options come first."""

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

    log_format: LogFormat = Field("text", description="`text` for people or `json`, one object a line, for collectors.")
    log_level: LogLevel = Field("info", description="The least that is logged of the service's own doings.")
    otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector that gets traces over HTTP, such as http://127.0.0.1:4318; off."
    )
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port on which `apportion worker` answers Prometheus, on the host; off."
    )

    @field_validator("allowed_hosts", "trusted_proxies", "allowed_targets", "spec_keys", mode="before")
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
