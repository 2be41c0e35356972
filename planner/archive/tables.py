"""The archive's tables; nothing outside this room sees a row."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, MetaData, SmallInteger, Table, UniqueConstraint
from sqlmodel import Field, SQLModel

from planner.archive.columns import AnyText, Json, RowNumber, UtcDateTime


class ArchiveTable(SQLModel):
    """Base of the tables: metadata of their own and constraint names that migrations can count on."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table_of(row: type[ArchiveTable]) -> Table:
    """The Core table behind a row class, for bulk statements."""
    return ArchiveTable.metadata.tables[str(row.__tablename__)]


def _study_key() -> Any:
    """Column that ties a row to its study and goes with it."""
    return Field(foreign_key="studies.id", ondelete="CASCADE")


class StudyRow(ArchiveTable, table=True):
    """One search."""

    __tablename__ = "studies"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "status"), Index(None, "name"))

    id: str = Field(primary_key=True)
    name: str
    spec: dict[str, Any] = Field(sa_type=Json)
    status: str
    proposer: str
    seed: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    phase: str
    round: int
    error: str = Field(sa_type=AnyText)
    cancel_requested: bool
    idempotency_key: str | None = Field(default=None, unique=True)
    schedule_name: str | None = Field(default=None, index=True)


class ProposalRow(ArchiveTable, table=True):
    """One allocation somebody suggested, and what review said."""

    __tablename__ = "proposals"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    round: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    attempt: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    allocation: dict[str, Any] | None = Field(default=None, sa_type=Json)
    allocation_key: str = Field(sa_type=AnyText)
    origin: str
    reason: str = Field(sa_type=AnyText)
    expected_score: float | None = None
    verdict: str
    verdict_reason: str = Field(sa_type=AnyText)
    prompt: str | None = Field(default=None, sa_type=AnyText)
    reply: str | None = Field(default=None, sa_type=AnyText)
    llm_model: str | None = None
    tokens_in: int = Field(sa_type=BigInteger)
    tokens_out: int = Field(sa_type=BigInteger)
    call: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """What else is known of an LLM call; NULL in rows recorded before it was kept."""

    created_at: datetime = Field(sa_type=UtcDateTime)


class TrialRow(ArchiveTable, table=True):
    """One allocation evaluated on a set of examples."""

    __tablename__ = "trials"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    trial_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    split: str
    round: int
    allocation: dict[str, Any] = Field(sa_type=Json)
    allocation_key: str = Field(sa_type=AnyText)
    status: str
    score: float | None = None
    standard_error: float | None = None
    scored: int
    failed: int
    predicted_cost: float
    measured_cost: float | None = None
    unit: str
    new_draws: int = Field(sa_type=BigInteger)
    reused_draws: int = Field(sa_type=BigInteger)
    prompt_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    spend_cost: float
    seconds: float
    load_seconds: float | None = None
    """NULL in trials recorded before loads were kept apart; their `seconds` hold them."""

    curves: dict[str, Any] = Field(sa_type=Json)
    draws: int | None = Field(default=None, sa_type=BigInteger)
    """Independent draws behind the score; NULL in trials recorded before they were counted."""

    stage_scores: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Mean score of stages with a metric of their own; NULL in older trials."""

    examples_planned: int | None = None
    """Examples of the split; more than were run where the trial was stopped. NULL in older trials."""

    created_at: datetime = Field(sa_type=UtcDateTime)


class EvidenceRow(ArchiveTable, table=True):
    """One trial on one example."""

    __tablename__ = "evidence"
    __table_args__ = (
        ForeignKeyConstraint(["study_id", "trial_no"], ["trials.study_id", "trials.trial_no"], ondelete="CASCADE"),
    )

    study_id: str = Field(primary_key=True)
    trial_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    example_id: str = Field(primary_key=True, sa_type=AnyText)
    position: int
    status: str
    score: float | None = None
    realised: float | None = None
    reason: str = Field(sa_type=AnyText)
    cost: float
    stages: list[Any] = Field(sa_type=Json)
    curves: dict[str, Any] = Field(sa_type=Json)


class ModelRow(ArchiveTable, table=True):
    """One model whose draws the bank holds."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "revision"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str = Field(sa_type=AnyText)
    revision: str = Field(sa_type=AnyText)


class OriginRow(ArchiveTable, table=True):
    """One batch that asked for draws first, by the name the execution gives it."""

    __tablename__ = "origins"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str = Field(unique=True, sa_type=AnyText)


class ParserRow(ArchiveTable, table=True):
    """One way to read answers out of texts."""

    __tablename__ = "parsers"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    digest: bytes = Field(unique=True)


class PromptRow(ArchiveTable, table=True):
    """One prompt of one model. Its draws refer to it by number: 32 bytes of key in each would be a third of a draw."""

    __tablename__ = "prompts"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    key: bytes = Field(unique=True)
    model_id: int = Field(foreign_key="models.id", sa_type=RowNumber)
    parser_id: int | None = Field(default=None, sa_type=RowNumber)
    """Whose answers stand in for the texts of this prompt; NULL while the texts themselves are needed."""


class TextRow(ArchiveTable, table=True):
    """One text that a model wrote, however often it did."""

    __tablename__ = "texts"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    digest: bytes = Field(unique=True)
    length: int
    """Characters."""

    body: bytes | None = None
    """See `planner.archive.texts.packed`; NULL where the text was dropped."""


class AnswerRow(ArchiveTable, table=True):
    """What one parser reads in one text."""

    __tablename__ = "answers"
    __table_args__ = ({"sqlite_with_rowid": False},)

    text_id: int = Field(primary_key=True, sa_type=RowNumber, sa_column_kwargs={"autoincrement": False})
    parser_id: int = Field(primary_key=True, sa_type=RowNumber, sa_column_kwargs={"autoincrement": False})
    answer: bytes | None = None
    """The canonical answer, packed like a text; NULL where there is none to be read."""


class DrawRow(ArchiveTable, table=True):
    """One draw of the sample bank, shared by all studies.

    Stored in the order of its key, so that a prompt's draws lie together. Texts and origins are referred to without a
    constraint: checking it would cost two look-ups a draw and an index that nothing else uses, and only `bank.py`
    writes these rows.
    """

    __tablename__ = "draws"
    __table_args__ = ({"sqlite_with_rowid": False},)

    prompt_id: int = Field(
        primary_key=True,
        foreign_key="prompts.id",
        ondelete="CASCADE",
        sa_type=RowNumber,
        sa_column_kwargs={"autoincrement": False},
    )
    index: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    text_id: int | None = Field(default=None, sa_type=RowNumber)
    """NULL is the empty text."""

    finish: int = Field(sa_type=SmallInteger)
    """A code of `planner.archive.bank.FINISH_CODES`."""

    prompt_tokens: int
    output_tokens: int
    logprob: float | None = None
    score: float | None = None
    origin_id: int = Field(sa_type=RowNumber)
    created_at: int = Field(sa_type=BigInteger)
    """Seconds since 1970 in UTC; a tenth of what a written date takes."""


class SettingRow(ArchiveTable, table=True):
    """One setting of the archive itself."""

    __tablename__ = "settings"

    name: str = Field(primary_key=True)
    value: str = Field(sa_type=AnyText)


class GuidelineRow(ArchiveTable, table=True):
    """What a round taught, in words and in structured form."""

    __tablename__ = "guidelines"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    round: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    insight: int
    stage: str | None = None
    text: str = Field(sa_type=AnyText)
    structured: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)


class PlanRow(ArchiveTable, table=True):
    """What a study ended with."""

    __tablename__ = "plans"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    kind: str = Field(primary_key=True)
    allocation: dict[str, Any] = Field(sa_type=Json)
    document: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)


class LedgerRow(ArchiveTable, table=True):
    """One reservation against a budget, and what it came to."""

    __tablename__ = "ledger_entries"

    study_id: str = Field(primary_key=True, foreign_key="studies.id", ondelete="CASCADE")
    ledger: str = Field(primary_key=True)
    entry_key: str = Field(primary_key=True)
    unit: str
    reserved: float
    settled: float | None = None
    created_at: datetime = Field(sa_type=UtcDateTime)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EventRow(ArchiveTable, table=True):
    """One thing that happened in a study, for those who watch."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "study_id", "id"),
        UniqueConstraint("study_id", "event_key"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    study_id: str = _study_key()
    event_key: str | None = None
    kind: str
    payload: dict[str, Any] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcDateTime)


class WorkerRow(ArchiveTable, table=True):
    """One process that runs studies, and when it was last heard of."""

    __tablename__ = "workers"

    executor_id: str = Field(primary_key=True)
    host: str
    pid: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    last_beat: datetime = Field(sa_type=UtcDateTime, index=True)


class ScheduleRow(ArchiveTable, table=True):
    """A study that is run again and again."""

    __tablename__ = "schedules"

    name: str = Field(primary_key=True)
    spec: dict[str, Any] = Field(sa_type=Json)
    cron: str
    timezone: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    paused: bool
    last_fired_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
