"""The archive's tables; nothing outside `planner.archive` sees a row."""

from planner.archive.tables.access import AuditRow, SessionRow, TokenRow
from planner.archive.tables.bank import (
    AnswerRow,
    DrawRow,
    ModelRow,
    OriginRow,
    ParserRow,
    PromptRow,
    SettingRow,
    TextRow,
)
from planner.archive.tables.base import ArchiveTable, study_key, table_of
from planner.archive.tables.promotions import PromotionRow
from planner.archive.tables.schedules import ScheduleAlertRow, ScheduleRow, ScheduleRunRow
from planner.archive.tables.service import DatasetRow, WorkerRow
from planner.archive.tables.studies import (
    EventRow,
    EvidenceRow,
    GuidelineRow,
    LedgerRow,
    PlanRow,
    ProposalRow,
    StudyRow,
    TrialRow,
)

__all__ = [
    "AnswerRow",
    "ArchiveTable",
    "AuditRow",
    "DatasetRow",
    "DrawRow",
    "EventRow",
    "EvidenceRow",
    "GuidelineRow",
    "LedgerRow",
    "ModelRow",
    "OriginRow",
    "ParserRow",
    "PlanRow",
    "PromotionRow",
    "PromptRow",
    "ProposalRow",
    "ScheduleAlertRow",
    "ScheduleRow",
    "ScheduleRunRow",
    "SessionRow",
    "SettingRow",
    "StudyRow",
    "TextRow",
    "TokenRow",
    "TrialRow",
    "WorkerRow",
    "study_key",
    "table_of",
]
