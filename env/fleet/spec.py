"""What a fleet file says: the devices, the models and how each is served. An operator's file, never a study's."""

from __future__ import annotations

import ipaddress
import re
from itertools import product
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from env.spec.stage import Name
from env.spec.strict import Strict

GIB = 1 << 30
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": GIB}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(value: object) -> object:
    """Bytes from ``80GiB``, ``500 MB`` or a plain number of bytes; anything else is left for Pydantic to refuse."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if not found or found[2].upper() not in _UNITS:
        raise ValueError(f"{value!r} is no size; write 80GiB, 500MiB or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2].upper()])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.1f} MiB"


class Knobs(Strict):
    """What an engine can be told about throughput; None leaves the engine's own default."""

    max_num_seqs: int | None = Field(None, ge=1, description="Sequences decoded at once.")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="Tokens of one engine step, prefill included.")
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    quantisation: str | None = Field(
        None, min_length=1, description="As vLLM names it: fp8, awq, gptq, bitsandbytes..."
    )


_LABEL = re.compile(r"[A-Za-z0-9_-]+")


def knob_label(knob: str, value: object) -> str:
    """A knob's value as it stands in a variant's name."""
    match knob:
        case "quantisation":
            return "plain" if value is None else str(value)
        case "enable_prefix_caching":
            return "cache" if value else "nocache"
        case "enable_chunked_prefill":
            return "chunked" if value else "unchunked"
        case _:
            return f"{'seqs' if knob == 'max_num_seqs' else 'tokens'}{value}"


class TunedKnobs(Strict):
    """Values of engine knobs to try, as a grid: by `apportion fleet tune`, or by a study's search."""

    max_num_seqs: tuple[int, ...] = ()
    max_num_batched_tokens: tuple[int, ...] = ()
    enable_prefix_caching: tuple[bool, ...] = ()
    enable_chunked_prefill: tuple[bool, ...] = ()
    quantisation: tuple[str | None, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> TunedKnobs:
        for knob in type(self).model_fields:
            values = getattr(self, knob)
            labels = [knob_label(knob, value) for value in values]
            if len(set(labels)) != len(labels):
                raise ValueError(f"{knob}: a value is listed twice")
            if any(not _LABEL.fullmatch(label) for label in labels):
                raise ValueError(f"{knob}: {', '.join(labels)}: names have letters, digits, - and _ only")
            if any(not isinstance(value, bool) and isinstance(value, int) and value < 1 for value in values):
                raise ValueError(f"{knob}: values are whole numbers above 0")
        return self

    def grid(self) -> list[dict[str, object]]:
        """Every combination of the listed values, in order; one empty combination where nothing is listed."""
        listed = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name)}
        return [dict(zip(listed, values, strict=True)) for values in product(*listed.values())]


class FleetModelSpec(Knobs):
    """One model and how it is served."""

    checkpoint: str = Field(
        min_length=1,
        description="embedded:<name>, a folder (relative to the fleet file), or a Hugging Face repository.",
    )
    runner: Literal["generate", "pooling"] = Field(
        "generate", description="pooling serves a verifier (classifier, reward model, cross-encoder) instead of text."
    )
    convert: Literal["classify", "none"] | None = Field(
        None, description="How vLLM makes a verifier of an architecture that it would serve for text; else its default."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    tensor_parallel: int = Field(1, ge=1, description="Devices that one copy is split over.")
    data_parallel: int = Field(1, ge=1, description="Copies behind the one URL; each takes tensor_parallel devices.")
    max_model_len: int | None = Field(None, ge=1, description="Context in tokens; the checkpoint's own by default.")
    memory: Bytes | None = Field(None, description="To claim on each device, all included; else computed.")
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, description="The same as a share of the device.")
    kv_tokens: int | None = Field(
        None, ge=1, description="Tokens of KV cache wanted per copy; eight sequences of max_model_len by default."
    )
    overhead: Bytes | None = Field(None, description="Per device beyond weights and KV cache; 2 GiB by default.")
    arguments: tuple[str, ...] = Field((), description="Further command-line arguments, as they are.")
    environment: dict[str, str] = Field({}, description="Further environment variables of the server.")
    revision: str = Field("", description="Stated revision of weights that are not in a local folder.")
    tune: TunedKnobs = Field(TunedKnobs(), description="Values that `apportion fleet tune` measures.")
    search: TunedKnobs = Field(TunedKnobs(), description="Values that a study may open to its search.")

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.tensor_parallel * self.data_parallel

    @model_validator(mode="after")
    def _one_claim(self) -> FleetModelSpec:
        if self.convert is not None and self.runner != "pooling":
            raise ValueError("convert makes a verifier: set runner: pooling as well")
        if self.memory is not None and self.gpu_memory_utilization is not None:
            raise ValueError("state memory or gpu_memory_utilization, not both")
        return self


class DeviceSpec(Strict):
    """One accelerator."""

    memory: Bytes = Field(description="All of its memory, as nvidia-smi tells it.")
    index: int | None = Field(None, ge=0, description="CUDA index; its place in the list by default.")


class CpuSpec(Strict):
    """Serve on the processor with a share of the machine's memory."""

    cpu_share: float = Field(0.6, gt=0, le=1)


class HealthSpec(Strict):
    """When a server counts as dead."""

    interval_s: float = Field(5.0, gt=0, description="Between looks at /health.")
    timeout_s: float = Field(10.0, gt=0, description="For one answer.")
    failures: int = Field(3, ge=1, description="In a row, until the server is replaced.")
    probe_interval_s: float = Field(
        60.0, gt=0, description="Without progress for so long, a one-token request must come through."
    )
    probe_timeout_s: float = Field(120.0, gt=0, description="For the one-token request.")


class RestartSpec(Strict):
    """How a server that was ready once is brought back."""

    first_wait_s: float = Field(1.0, ge=0, description="Doubled at every further attempt.")
    longest_wait_s: float = Field(60.0, ge=0)
    attempts: int = Field(5, ge=0, description="In a row, until it is given up.")
    stable_s: float = Field(60.0, ge=0, description="Ready for so long, the count starts anew.")


class FleetSpec(Strict):
    """The model servers of one machine."""

    version: Literal[1] = 1
    engine: Literal["vllm", "torch"] = Field("vllm", description="Whose arguments the executable understands.")
    executable: tuple[str, ...] = Field(
        (), description="Default: vllm; for the torch engine this installation's own `apportion`."
    )
    devices: Literal["auto", "cpu"] | CpuSpec | tuple[DeviceSpec, ...] = "auto"
    device_share: float = Field(0.95, gt=0, le=1, description="Part of each accelerator's memory the fleet may claim.")
    models: dict[Name, FleetModelSpec] = Field(min_length=1)
    host: str = "127.0.0.1"
    ports: tuple[int, int] = Field((8400, 8499), description="First and last port to use.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable with the token servers ask for."
    )
    folder: str = Field(".apportion/fleet", description="Logs and state, relative to the fleet file.")
    log_limit: Bytes = Field(32 << 20, description="Size of one server's log before it starts anew; one older is kept.")
    ready_timeout_s: float = Field(600.0, gt=0, description="From start to the first answered request.")
    stop_timeout_s: float = Field(45.0, gt=0, description="From SIGTERM to SIGKILL.")
    idle_stop_s: float | None = Field(None, gt=0, description="Stop a model that nothing used for so long.")
    sleep: Literal["auto", "never"] = Field("auto", description="auto: vLLM's sleep mode where it starts with it.")
    sleeping_memory: Bytes = Field(GIB, description="What a sleeping server keeps on each of its devices.")
    health: HealthSpec = HealthSpec()
    restart: RestartSpec = RestartSpec()

    @field_validator("executable", mode="before")
    @classmethod
    def _one_word(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sound(self) -> FleetSpec:
        first, last = self.ports
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"ports {first} to {last} are no range within 1 to 65535")
        if self.devices == ():
            raise ValueError("devices is empty; list them, or write auto or cpu")
        if not _loopback(self.host) and self.api_key_env is None:
            raise ValueError(f"servers on {self.host} can be reached from elsewhere: set api_key_env")
        if self.engine == "torch":
            self._refuse_what_torch_lacks()
        return self

    def _refuse_what_torch_lacks(self) -> None:
        lacking = ("max_num_batched_tokens", "enable_prefix_caching", "enable_chunked_prefill", "quantisation")
        for name, model in self.models.items():
            for knob in lacking:
                if getattr(model, knob) is not None or getattr(model.tune, knob) or getattr(model.search, knob):
                    raise ValueError(f"models.{name}.{knob}: the torch engine has no such knob; leave it out")
            if model.devices > 1:
                raise ValueError(f"models.{name}: the torch engine serves on one device; leave out the parallel sizes")

    @property
    def on_cpu(self) -> bool:
        """Whether the file itself says so (``auto`` may come to the same)."""
        return self.devices == "cpu" or isinstance(self.devices, CpuSpec)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
