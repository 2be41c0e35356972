"""What the service answers and accepts; the archive's own records never leave as they are."""

from api.schemas.base import AllocationPublic, Public
from api.schemas.estimates import CheapestPublic, CheckPublic, EstimatePublic, LedgerEstimate
from api.schemas.health import HealthPublic
from api.schemas.proposals import GuidelinePublic, ProposalPublic
from api.schemas.schedules import (
    AlertPlan,
    AlertPublic,
    RunPage,
    RunPublic,
    ScheduleCreate,
    ScheduleDetail,
    ScheduleFields,
    ScheduleName,
    SchedulePatch,
    SchedulePublic,
)
from api.schemas.studies import PlanSummary, StudyDetail, StudyPage, StudyPublic
from api.schemas.trials import CurvePoint, ExamplePublic, StageOutcomePublic, TrialDetail, TrialPublic

__all__ = [
    "AlertPlan",
    "AlertPublic",
    "AllocationPublic",
    "CheapestPublic",
    "CheckPublic",
    "CurvePoint",
    "EstimatePublic",
    "ExamplePublic",
    "GuidelinePublic",
    "HealthPublic",
    "LedgerEstimate",
    "PlanSummary",
    "ProposalPublic",
    "Public",
    "RunPage",
    "RunPublic",
    "ScheduleCreate",
    "ScheduleDetail",
    "ScheduleFields",
    "ScheduleName",
    "SchedulePatch",
    "SchedulePublic",
    "StageOutcomePublic",
    "StudyDetail",
    "StudyPage",
    "StudyPublic",
    "TrialDetail",
    "TrialPublic",
]
