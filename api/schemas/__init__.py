"""What the service answers and accepts; the archive's own records never leave as they are."""

from api.schemas.base import AllocationPublic, Page, Public
from api.schemas.datasets import DatasetName, DatasetPublic, FileDataPublic, RowPublic
from api.schemas.estimates import CheapestPublic, CheckPublic, EstimatePublic, LedgerEstimate
from api.schemas.health import HealthPublic
from api.schemas.inspected import ExampleInspectedPublic
from api.schemas.models import FleetPublic, FleetServerPublic, ModelPublic
from api.schemas.pipelines import PipelineDetail, PipelinePublic
from api.schemas.plans import PlanDetail, PlanPromote, PlanPublic, PromotionPublic
from api.schemas.proposals import GuidelinePublic, LedgerEntryPublic, LedgerPublic, ProposalPublic
from api.schemas.schedules import (
    AlertPlan,
    AlertPublic,
    RunPublic,
    ScheduleCreate,
    ScheduleDetail,
    ScheduleFields,
    ScheduleName,
    SchedulePatch,
    SchedulePublic,
)
from api.schemas.studies import NotesPublic, PlanSummary, StudyClone, StudyDetail, StudyPublic
from api.schemas.trials import CurvePoint, ExamplePublic, StageOutcomePublic, TrialDetail, TrialPublic

__all__ = [
    "AlertPlan",
    "AlertPublic",
    "AllocationPublic",
    "CheapestPublic",
    "CheckPublic",
    "CurvePoint",
    "DatasetName",
    "DatasetPublic",
    "EstimatePublic",
    "ExampleInspectedPublic",
    "ExamplePublic",
    "FileDataPublic",
    "FleetPublic",
    "FleetServerPublic",
    "GuidelinePublic",
    "HealthPublic",
    "LedgerEntryPublic",
    "LedgerEstimate",
    "LedgerPublic",
    "ModelPublic",
    "NotesPublic",
    "Page",
    "PipelineDetail",
    "PipelinePublic",
    "PlanDetail",
    "PlanPromote",
    "PlanPublic",
    "PlanSummary",
    "PromotionPublic",
    "ProposalPublic",
    "Public",
    "RowPublic",
    "RunPublic",
    "ScheduleCreate",
    "ScheduleDetail",
    "ScheduleFields",
    "ScheduleName",
    "SchedulePatch",
    "SchedulePublic",
    "StageOutcomePublic",
    "StudyClone",
    "StudyDetail",
    "StudyPublic",
    "TrialDetail",
    "TrialPublic",
]
