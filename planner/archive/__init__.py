"""Keeps studies, trials, evidence, draws, plans and ledgers in SQL, on SQLite or PostgreSQL."""

from planner.archive.access import AccessScope, NewToken, TokenRecord
from planner.archive.archive import Archive, open_archive
from planner.archive.audit import AuditRecord
from planner.archive.bank import SqlSampleBank
from planner.archive.connection import open_engine
from planner.archive.datasets import DatasetRecord
from planner.archive.errors import Ambiguous, ArchiveError, BudgetExhausted, Changed, NotFound, StatusConflict
from planner.archive.filters import StudyFilter
from planner.archive.ledgers import Decision
from planner.archive.migration import current_revision, head_revision, migrate
from planner.archive.records import (
    Claim,
    EventRecord,
    GuidelineRecord,
    KPoint,
    Ledger,
    LedgerEntry,
    LedgerUsage,
    PlanKind,
    PlanRecord,
    PromotionRecord,
    ProposalRecord,
    SearchLedger,
    StudyRecord,
    StudyStatus,
    TrialRecord,
    WorkerRecord,
)
from planner.archive.schedule_records import (
    Advance,
    AlertRecord,
    AlertTarget,
    NewRun,
    RunRecord,
    SchedulePlan,
    ScheduleRecord,
)

__all__ = [
    "AccessScope",
    "Advance",
    "AlertRecord",
    "AlertTarget",
    "Ambiguous",
    "Archive",
    "ArchiveError",
    "AuditRecord",
    "BudgetExhausted",
    "Changed",
    "Claim",
    "DatasetRecord",
    "Decision",
    "EventRecord",
    "GuidelineRecord",
    "KPoint",
    "Ledger",
    "LedgerEntry",
    "LedgerUsage",
    "NewRun",
    "NewToken",
    "NotFound",
    "PlanKind",
    "PlanRecord",
    "PromotionRecord",
    "ProposalRecord",
    "RunRecord",
    "SchedulePlan",
    "ScheduleRecord",
    "SearchLedger",
    "SqlSampleBank",
    "StatusConflict",
    "StudyFilter",
    "StudyRecord",
    "StudyStatus",
    "TokenRecord",
    "TrialRecord",
    "WorkerRecord",
    "current_revision",
    "head_revision",
    "migrate",
    "open_archive",
    "open_engine",
]
