"""``python -m env.costs``: the cost of one stage in every unit, for models of the catalogue or checkpoints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from env.costs._base import CostDataError, CostOptions, ModelProfile, StageTokens
from env.costs.accelerators import accelerators, precision_of
from env.costs.architecture import active_parameters, kv_bytes_per_token, total_parameters, weight_bytes
from env.costs.catalogue import catalogue, catalogued
from env.costs.checkpoint import read_architecture, read_quantisation
from env.costs.runtime import accelerators_needed
from env.costs.units import UNITS, cost_model
from env.errors import ApportionError
from env.spec.architecture import Price


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ladder, the catalogue or the accelerators; returns the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.catalogue:
            _print_table(_catalogue_rows(), asked.json)
        elif asked.accelerators:
            _print_table(_accelerator_rows(), asked.json)
        elif not asked.model:
            raise CostDataError("name a model; --catalogue lists them")
        else:
            _print_ladders(asked)
    except ApportionError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m env.costs", description=__doc__)
    parser.add_argument("model", nargs="*", help="a name of the catalogue, or a folder with a config.json")
    parser.add_argument("--catalogue", action="store_true", help="list the models known by name")
    parser.add_argument("--accelerators", action="store_true", help="list the accelerators known by name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    tokens = parser.add_argument_group("tokens of the stage")
    tokens.add_argument("--prompt", type=_not_negative, default=1024, metavar="N", help="tokens of the prompt (1024)")
    tokens.add_argument("--output", type=_not_negative, default=256, metavar="N", help="tokens of a sample (256)")
    tokens.add_argument("--samples", type=_positive, default=1, metavar="N", help="samples of the prompt (1)")
    serving = parser.add_argument_group("how it is served, as a plan budget states it")
    serving.add_argument("--separate-prompts", action="store_true", help="the prompt is processed for each sample")
    serving.add_argument("--accelerator", choices=sorted(accelerators()))
    serving.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp8", "int8", "fp4"))
    serving.add_argument("--tensor-parallel", type=_positive, metavar="N")
    serving.add_argument("--batch-size", type=_positive, metavar="N")
    serving.add_argument("--intensity", type=float, metavar="FLOPS_PER_BYTE")
    serving.add_argument("--power-fraction", type=float, default=1.0)
    serving.add_argument("--pue", type=float, default=1.0)
    serving.add_argument("--calibration", type=float, metavar="FACTOR")
    model = parser.add_argument_group("the model's weights and price")
    model.add_argument("--weights-bits", type=float)
    model.add_argument("--kv-bits", type=float)
    model.add_argument("--price", type=_price, metavar="INPUT,OUTPUT[,CACHED]", help="USD for a million tokens")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of tokens")
    return value


def _price(text: str) -> Price:
    parts = [float(part) for part in text.split(",")]
    if len(parts) not in (2, 3) or any(part < 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not INPUT,OUTPUT or INPUT,OUTPUT,CACHED")
    return Price(input=parts[0], output=parts[1], cached_input=parts[2] if len(parts) == 3 else None)


def _options(asked: argparse.Namespace) -> CostOptions:
    return CostOptions(
        prompt_shared=not asked.separate_prompts,
        accelerator=asked.accelerator,
        precision=asked.precision,
        tensor_parallel=asked.tensor_parallel,
        batch_size=asked.batch_size,
        intensity=asked.intensity,
        power_fraction=asked.power_fraction,
        pue=asked.pue,
        calibration=asked.calibration,
    )


def _profile(name: str, asked: argparse.Namespace) -> ModelProfile:
    folder = Path(name)
    if (folder / "config.json").is_file():
        architecture, quantisation = read_architecture(folder), read_quantisation(folder)
    else:
        entry = catalogued(name)
        architecture, quantisation = entry.architecture, entry.quantisation
    if asked.weights_bits is not None:
        quantisation = quantisation.model_copy(update={"weights_bits": asked.weights_bits, "expert_bits": None})
    if asked.kv_bits is not None:
        quantisation = quantisation.model_copy(update={"kv_bits": asked.kv_bits})
    active, total = active_parameters(architecture), total_parameters(architecture)
    return ModelProfile(name, float(active), float(total), architecture, quantisation, asked.price)


def _print_ladders(asked: argparse.Namespace) -> None:
    options = _options(asked)
    tokens = StageTokens(asked.prompt, asked.output, asked.samples)
    ladders = [_ladder(_profile(name, asked), tokens, options) for name in asked.model]
    if asked.json:
        said = {"prompt": tokens.prompt, "output": tokens.output, "samples": tokens.samples}
        print(json.dumps({"tokens": said, "models": ladders}, indent=2))
        return
    print(f"{tokens.samples} x {tokens.output:g} tokens after a prompt of {tokens.prompt:g}")
    if options.accelerator:
        print(f"on {accelerators()[options.accelerator].title}, {precision_of(options)}")
    names = [ladder["model"] for ladder in ladders]
    rows = [["", "unit", *names]]
    for field, unit in (("active", "parameters"), ("total", "parameters"), ("weights", "bytes"), ("kv_token", "bytes")):
        rows.append([field.replace("_", " per "), unit, *(f"{ladder[field]:.6g}" for ladder in ladders)])
    if options.accelerator:
        rows.append(["accelerators", "", *(str(ladder["accelerators"]) for ladder in ladders)])
    for unit in UNITS:
        shown = [ladder["costs"].get(unit) for ladder in ladders]
        rows.append([unit, cost_model(unit).unit, *("-" if cost is None else f"{cost:.6g}" for cost in shown)])
    _print_aligned(rows)
    needs = {unit: need for ladder in ladders for unit, need in ladder["needs"].items()}
    for unit, need in needs.items():
        print(f"{unit} needs {need}")


def _ladder(model: ModelProfile, tokens: StageTokens, options: CostOptions) -> dict[str, Any]:
    assert model.architecture is not None
    costs: dict[str, float] = {}
    needs: dict[str, str] = {}
    for unit in UNITS:
        priced = cost_model(unit, options)
        lacks = priced.lacks(model)
        if lacks:
            needs[unit] = "; ".join(f"{lack.field}: {lack.message}" for lack in lacks)
        else:
            costs[unit] = priced.stage_cost(model, tokens)
    return {
        "model": model.name,
        "active": model.active,
        "total": model.total,
        "weights": weight_bytes(model.architecture, model.quantisation),
        "kv_token": kv_bytes_per_token(model.architecture, model.quantisation),
        "accelerators": accelerators_needed(model, options) if options.accelerator else None,
        "costs": costs,
        "needs": needs,
    }


def _catalogue_rows() -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "total": float(total_parameters(entry.architecture)),
            "published": entry.published.total,
            "active": float(active_parameters(entry.architecture)),
            "weights": weight_bytes(entry.architecture, entry.quantisation),
            "kv_token": kv_bytes_per_token(entry.architecture, entry.quantisation),
            "source": entry.published.source,
        }
        for name, entry in catalogue().items()
    ]


def _accelerator_rows() -> list[dict[str, Any]]:
    return [
        {
            "accelerator": name,
            "memory_gb": device.memory_gb,
            "bandwidth_gbps": device.bandwidth_gbps,
            "power_w": device.power_w,
            "peak_tflops": " ".join(f"{precision}:{rate:g}" for precision, rate in device.peak_tflops.items()),
            "source": device.source,
        }
        for name, device in accelerators().items()
    ]


def _print_table(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    head = list(rows[0])
    body = [
        ["-" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    _print_aligned([head, *body])


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
