"""What a pipeline is: its models, its stages and how an answer is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from env.spec.architecture import ArchitectureSpec, Price, Quantisation
from env.spec.stage import ModelName, Name, PromptMessage, StageSpec
from env.spec.strict import Strict

MetricName = Literal["exact_match", "f1"]


StatedParameters = Annotated[
    float | None,
    Field(gt=0, description="Active parameters, for the cost model; counted from the architecture where not given."),
]
StatedArchitecture = Annotated[
    ArchitectureSpec | None,
    Field(description="A name from the catalogue (`python -m env.costs --catalogue` lists them), or the numbers."),
]
StatedQuantisation = Annotated[
    Quantisation | None,
    Field(description="Bits of weights and KV cache; as the checkpoint says, else 16, where not given."),
]
StatedPrice = Annotated[
    Price | None, Field(description="US dollars for a million tokens; a plan budget in dollars needs it.")
]


StatedApi = Annotated[
    Literal["chat", "completions", "classify", "pooling", "score", "reward"],
    Field(
        description="How it is asked: chat or text completions; for a verifier one of vLLM's endpoints: classify, "
        "pooling, score (a cross-encoder on prompt and reply), or reward (pooling, with the task that rewards names)."
    ),
]
StatedLabel = Annotated[
    int | str | None,
    Field(description="Of a verifier with several labels: the one whose probability is the score (place or name)."),
]
StatedScores = Annotated[
    Literal["probability", "logit"],
    Field(
        description="What a verifier's numbers are. Logits become probabilities: one by sigmoid, several by softmax."
    ),
]
StatedRewards = Annotated[
    Literal["outcome", "process"],
    Field(description="With api reward: whether the model judges the reply as a whole, or every step or token of it."),
]
StatedSteps = Annotated[
    Literal["last", "min", "mean", "product"],
    Field(description="Of a verifier that gives several numbers a reply, one a step: how they make one score."),
]


EngineKnob = Literal[
    "quantisation", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "enable_chunked_prefill"
]


def _draws_text(api: str) -> bool:
    return api in ("chat", "completions")


class TorchModel(Strict):
    """A checkpoint in HF format served in process by the torch engine."""

    backend: Literal["torch"]
    checkpoint: str = Field(description="embedded:<name>, or a folder below the data root.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parameters: StatedParameters = None
    architecture: StatedArchitecture = None
    quantisation: StatedQuantisation = None
    price: StatedPrice = None


class OpenAIModel(Strict):
    """A model behind any OpenAI-compatible server."""

    backend: Literal["openai"]
    base_url: str = Field(pattern=r"^https?://", description="For instance http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="The name the server knows it by.")
    revision: str = Field("", description="Stated revision of the weights; part of every draw's key.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the key."
    )
    parameters: StatedParameters = None
    architecture: StatedArchitecture = None
    quantisation: StatedQuantisation = None
    price: StatedPrice = None
    timeout_s: float = Field(60.0, gt=0, le=3600, description="Limit of one attempt, in seconds.")
    max_retries: int = Field(4, ge=0, le=20)
    concurrency: int = Field(
        32, ge=1, le=4096, description="Requests in flight at once, at most; fewer while the server is overloaded."
    )
    api: StatedApi = "chat"
    label: StatedLabel = None
    scores: StatedScores = "probability"
    rewards: StatedRewards = "process"
    steps: StatedSteps = "last"
    continues: bool | None = Field(
        None,
        description="Whether the server continues a final assistant message; found out when needed where not given.",
    )
    missing_usage: Literal["fail", "estimate"] = Field(
        "fail",
        description="Where replies count no tokens: fail, or estimate one token for every four bytes.",
    )

    @property
    def draws(self) -> bool:
        """Whether it is asked for text; else it is a verifier."""
        return _draws_text(self.api)

    @model_validator(mode="after")
    def _has_a_size(self) -> OpenAIModel:
        if self.parameters is None and self.architecture is None:
            raise ValueError("state parameters, or an architecture to count them from")
        return self


class FleetModel(Strict):
    """A model of the operator's fleet file (APPORTION_FLEET), whose server is started when a study needs it."""

    backend: Literal["fleet"]
    model: ModelName = Field(description="Its name in the fleet file; of a variant with its knobs, as small@fp8.")
    open: tuple[EngineKnob, ...] = Field(
        (),
        description="Engine knobs that the search chooses, among the values that the fleet file lists under the "
        "model's `search`.",
    )
    revision: str = Field("", description="Stated revision of the weights; a local checkpoint's content by default.")
    parameters: StatedParameters = None
    architecture: StatedArchitecture = None
    quantisation: StatedQuantisation = None
    price: StatedPrice = None
    timeout_s: float = Field(300.0, gt=0, le=3600)
    max_retries: int = Field(4, ge=0, le=20)
    concurrency: int = Field(64, ge=1, le=4096)
    api: StatedApi = "chat"
    label: StatedLabel = None
    scores: StatedScores = "probability"
    rewards: StatedRewards = "process"
    steps: StatedSteps = "last"

    @property
    def draws(self) -> bool:
        """Whether it is asked for text; else it is a verifier."""
        return _draws_text(self.api)


class ReplayModel(Strict):
    """A model's recorded draws in a Parquet file; nothing is generated.

    The last message of a stage's prompt names the draws as a JSON object with stage, example and upstream answers.
    """

    backend: Literal["replay"]
    path: str = Field(min_length=1, description="The pool's Parquet file, below the data root.")
    model: str = Field(min_length=1, description="The model's name in the pool's column `model`.")
    parameters: float = Field(gt=0, description="Active parameters, for the cost model.")
    architecture: StatedArchitecture = None
    quantisation: StatedQuantisation = None
    price: StatedPrice = None


JUDGE_PROMPT = (
    PromptMessage(
        role="user",
        template=(
            "{{ prompt }}\n\n[Reply{% if partial %} so far{% endif %}]\n{{ attempt }}\n\n"
            "Is this reply{% if partial %} right as far as it goes{% else %} right{% endif %}? Think it through, then "
            "end with one line: 'Verdict: right' or 'Verdict: wrong'."
        ),
    ),
)


class JudgeModel(Strict):
    """A verifier that is another model of the pipeline, asked whether a reply is right."""

    backend: Literal["judge"]
    model: ModelName = Field(description="The model that judges, by its name under `models`.")
    prompt: tuple[PromptMessage, ...] = Field(
        JUDGE_PROMPT,
        min_length=1,
        description="May name `prompt` (what was asked), `attempt` (the reply) and `partial` (whether it is cut off).",
    )
    samples: int = Field(1, ge=1, le=100, description="Verdicts on each reply; the score is the share of right ones.")
    temperature: float = Field(0.7, ge=0, le=10)
    max_tokens: int = Field(256, ge=1, le=1_000_000)
    output_tokens: int = Field(64, ge=1, le=1_000_000, description="Tokens of a verdict that the cost model plans.")


ServedModel = TorchModel | OpenAIModel | FleetModel | ReplayModel
"""Models with a backend of their own."""

ModelSpec = Annotated[TorchModel | OpenAIModel | FleetModel | ReplayModel | JudgeModel, Field(discriminator="backend")]


class PipelineSpec(Strict):
    """Ordered stages; each may read the example and any earlier stage."""

    name: Name
    models: dict[ModelName, ModelSpec] = Field(min_length=1)
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    metric: MetricName = "exact_match"

    def stage(self, name: str) -> StageSpec:
        """The stage of that name.

        Raises:
            KeyError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
