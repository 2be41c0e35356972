"""Fleet files: what is refused, and the command lines that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from env.fleet.devices import Device
from env.fleet.errors import FleetError
from env.fleet.launching import launch_of
from env.fleet.load import configured_fleet, fleet_of, load_fleet
from env.fleet.memory import demand_of
from env.fleet.spec import TunedKnobs, parse_bytes

GPUS = [Device("cuda", number, 80 << 30) for number in (2, 3, 5, 7)]
EXAMPLES = Path(__file__).parents[3] / "examples"


def launch(folder: Path, devices: list[Device], sleep: bool = False, **changes: Any) -> tuple[str, dict[str, str]]:
    model = {"checkpoint": "embedded:s", "memory": "40GiB"} | changes.pop("model", {})
    program = folder / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    raw = {"executable": "./vllm", "models": {"s": model}} | changes
    file = fleet_of(raw, folder / "fleet.yaml")
    demand = demand_of("s", file.model("s"), file.checkpoint("s"))
    found = launch_of(file, demand, devices, 8400, sleep)
    assert found.command[0] == str(program)
    return found.shown(), found.environment


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": {}}, ["models"]),
        ({"models": {"s": {"checkpoint": "x", "tensor_paralel": 2}}}, ["models.s.tensor_paralel", "unknown field"]),
        ({"models": {"s": {"checkpoint": "x", "memory": "12 parsecs"}}}, ["models.s.memory", "no size"]),
        ({"models": {"s": {"checkpoint": "x", "memory": 1, "gpu_memory_utilization": 0.5}}}, ["not both"]),
        ({"ports": [9000, 8000]}, ["ports 9000 to 8000"]),
        ({"devices": []}, ["devices is empty"]),
        ({"host": "0.0.0.0"}, ["api_key_env"]),
        ({"engine": "torch", "models": {"s": {"checkpoint": "x", "tensor_parallel": 2}}}, ["torch engine"]),
        ({"engine": "torch", "models": {"s": {"checkpoint": "x", "enable_prefix_caching": True}}}, ["no such knob"]),
    ],
)
def test_faults_are_named_with_their_field(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(FleetError) as caught:
        fleet_of({"models": {"s": {"checkpoint": "embedded:s"}}} | changes, tmp_path / "fleet.yaml")
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_missing_file_checkpoint_or_program_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot read"):
        load_fleet(tmp_path / "none.yaml")
    file = fleet_of(
        {"models": {"a": {"checkpoint": "./gone"}, "b": {"checkpoint": "embedded:zz"}}}, tmp_path / "f.yaml"
    )
    with pytest.raises(FleetError, match=r"no config\.json in .*gone"):
        file.checkpoint("a")
    with pytest.raises(FleetError, match="no embedded model 'zz'"):
        file.checkpoint("b")
    sound = {"executable": "./vllm-of-mine", "models": {"s": {"checkpoint": "embedded:s"}}}
    file = fleet_of(sound, tmp_path / "f.yaml")
    demand = demand_of("s", file.model("s"), file.checkpoint("s"))
    with pytest.raises(FleetError, match=r"there is no program './vllm-of-mine'"):
        launch_of(file, demand, GPUS[:1], 8400)


def test_a_repository_name_is_left_to_the_engine(tmp_path: Path) -> None:
    file = fleet_of({"models": {"far": {"checkpoint": "owner/never-downloaded"}}}, tmp_path / "f.yaml")
    assert file.checkpoint("far") is None


def test_every_setting_reaches_the_command_line(tmp_path: Path) -> None:
    command, environment = launch(
        tmp_path,
        GPUS,
        model={
            "dtype": "bfloat16",
            "quantisation": "fp8",
            "tensor_parallel": 2,
            "data_parallel": 2,
            "max_model_len": 128,
            "max_num_seqs": 64,
            "max_num_batched_tokens": 4096,
            "enable_prefix_caching": True,
            "enable_chunked_prefill": False,
            "arguments": ["--seed", "7"],
            "environment": {"X": "1"},
        },
    )
    for part in (
        "serve ",
        "--served-model-name s",
        "--port 8400",
        "--dtype bfloat16",
        "--quantization fp8",
        "--tensor-parallel-size 2",
        "--data-parallel-size 2",
        "--max-model-len 128",
        "--max-num-seqs 64",
        "--max-num-batched-tokens 4096",
        "--enable-prefix-caching",
        "--no-enable-chunked-prefill",
        "--gpu-memory-utilization 0.5 ",
    ):
        assert part in command
    assert command.endswith("--seed 7")
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3,5,7"
    assert environment["X"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "sleep" not in command


def test_on_a_processor_the_cache_is_stated_in_bytes_and_cores_are_not_bound(tmp_path: Path) -> None:
    command, environment = launch(tmp_path, [Device("cpu", 0, 64 << 30)], model={"memory": "3GiB", "overhead": "2GiB"})
    room = int(command.split("--kv-cache-memory-bytes ")[1].split()[0])
    assert 0.99 * (1 << 30) < room < 1 << 30
    assert "gpu-memory" not in command
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_sleep_mode_brings_its_switch_and_its_variable(tmp_path: Path) -> None:
    command, environment = launch(tmp_path, GPUS[:1], sleep=True)
    assert "--enable-sleep-mode" in command
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_the_module_form_takes_the_model_as_an_option(tmp_path: Path) -> None:
    command, _ = launch(tmp_path, GPUS[:1], executable=["./vllm", "-m", "vllm.entrypoints.openai.api_server"])
    assert "-m vllm.entrypoints.openai.api_server --model " in command
    assert " serve " not in command


def test_a_token_goes_by_the_environment_not_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    command, environment = launch(tmp_path, GPUS[:1], api_key_env="MY_TOKEN")
    assert environment["VLLM_API_KEY"] == "s3cret"
    assert "s3cret" not in command
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(FleetError, match="MY_TOKEN"):
        launch(tmp_path, GPUS[:1], api_key_env="MY_TOKEN")


def test_sizes_are_read_with_their_units() -> None:
    assert [parse_bytes(v) for v in ("1GiB", "1.5 gib", "2MB", "7", 12)] == [1 << 30, 3 << 29, 2_000_000, 7, 12]


def test_the_grid_is_every_combination_of_what_is_listed() -> None:
    assert TunedKnobs().grid() == [{}]
    grid = TunedKnobs(max_num_seqs=(1, 2), enable_prefix_caching=(True, False)).grid()
    assert len(grid) == 4
    assert {"max_num_seqs": 2, "enable_prefix_caching": False} in grid


def test_the_operators_fleet_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPORTION_FLEET", raising=False)
    with pytest.raises(FleetError, match="APPORTION_FLEET"):
        configured_fleet()
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump({"models": {"s": {"checkpoint": "embedded:s"}}}))
    monkeypatch.setenv("APPORTION_FLEET", str(path))
    assert configured_fleet().path == path.resolve()


@pytest.mark.parametrize("name", ["fleet.yaml", "fleet-cpu.yaml"])
def test_the_example_files_are_sound(name: str) -> None:
    assert load_fleet(EXAMPLES / name).spec.models
