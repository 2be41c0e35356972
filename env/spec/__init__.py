"""States what a study is, in one Pydantic model, and finds everything wrong with it before anything runs."""

from env.spec.faults import Fault, SpecError
from env.spec.pipeline import FleetModel, JudgeModel, OpenAIModel, PipelineSpec, ReplayModel, TorchModel
from env.spec.stage import StageSpec
from env.spec.study import StudySpec

__all__ = [
    "Fault",
    "FleetModel",
    "JudgeModel",
    "OpenAIModel",
    "PipelineSpec",
    "ReplayModel",
    "SpecError",
    "StageSpec",
    "StudySpec",
    "TorchModel",
]
