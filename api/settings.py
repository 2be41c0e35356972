"""Settings from the environment: where the archive lives and what the service binds to."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    host: str = Field("127.0.0.1", description="Address the service binds to; loopback only in this version.")
    port: int = Field(8321, ge=0, le=65535)

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
