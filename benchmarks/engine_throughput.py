"""Tokens per second of the torch engine against transformers' ``generate``, on the same checkpoints and prompts.

``python -m benchmarks.engine_throughput [--checkpoints DIR ...]`` prints JSON with, for each model and each case, the
median tokens/s of both and their ratio. Repeats of the two alternate in one process with one thread count. Both sample
at temperature 1 from token ids (no tokenising is timed) up to the same number of new tokens; a token counts until its
row's end token, that included. The engine takes one of the threads for models whose operations are too small to split
(``engine_threads``); ``--threads 1`` compares both on one. ``distinct`` gives every row its own prompt, ``samples``
draws 16 from each.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from env.backends import Message, Sampling
from env.embedded import MODEL_NAMES, checkpoint_path, ledger_examples
from env.engine.engine import Engine
from env.engine.jobs import Job
from env.engine.threads import useful_threads
from env.errors import CheckpointError

CASES = {"distinct": 1, "samples": 16}
"""Samples drawn of each prompt."""


@dataclass(frozen=True)
class Load:
    """What both sides are asked for."""

    prompts: Sequence[Sequence[int]]
    samples: int
    max_new_tokens: int


def main() -> None:
    """Run the benchmark and print its JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = options.checkpoints or [_embedded(name, Path(folder)) for name in MODEL_NAMES]
        models = [_measure(checkpoint, options) for checkpoint in checkpoints]
    settings = {name: getattr(options, name) for name in ("rows", "max_new_tokens", "repeats", "threads")}
    print(json.dumps({"benchmark": "engine_throughput", **settings, "models": models}, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Engine throughput against transformers' generate")
    parser.add_argument("--checkpoints", type=Path, nargs="*", help="default: the embedded models")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def _embedded(name: str, folder: Path) -> Path:
    """The embedded checkpoint; a random one of the same size where the weights are not installed."""
    try:
        return checkpoint_path(name)
    except CheckpointError:
        from env.embedded.architecture import new_model
        from env.embedded.vocabulary import save_tokenizer

        target = folder / f"{name}-random"
        new_model(name, seed=0).save_pretrained(target)
        save_tokenizer(target)
        return target


def _measure(checkpoint: Path, options: argparse.Namespace) -> dict[str, Any]:
    engine = Engine(checkpoint, device="cpu", max_rows=options.rows)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    prompts = _prompts(engine, options.rows)
    cases = {}
    for case, samples in CASES.items():
        load = Load(prompts[: options.rows // samples], samples, options.max_new_tokens)
        cases[case] = _compare(engine, reference, load, options.repeats)
    engine.close()
    parameters = sum(weight.numel() for weight in reference.parameters())
    threads = useful_threads(engine.config)
    return {"model": checkpoint.name, "parameters": parameters, "engine_threads": threads, **cases}


def _compare(engine: Engine, reference: Any, load: Load, repeats: int) -> dict[str, float]:
    sides: dict[str, Callable[[int], int]] = {
        "engine": lambda seed: _run_engine(engine, load, seed),
        "transformers": lambda seed: _run_transformers(engine, reference, load, seed),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            begin = time.perf_counter()
            tokens = run(repeat)
            speed = tokens / (time.perf_counter() - begin)
            if repeat:  # the first round only warms up
                speeds[name].append(speed)
    medians = {f"{name}_tokens_per_s": round(statistics.median(values), 1) for name, values in speeds.items()}
    ratios = [ours / theirs for ours, theirs in zip(speeds["engine"], speeds["transformers"], strict=True)]
    spread = {"lowest_ratio": round(min(ratios), 2), "highest_ratio": round(max(ratios), 2)}
    ratio = medians["engine_tokens_per_s"] / medians["transformers_tokens_per_s"]
    return {**medians, "ratio": round(ratio, 2), **spread}


def _run_engine(engine: Engine, load: Load, seed: int) -> int:
    sampling = Sampling(max_tokens=load.max_new_tokens, seed=seed)
    jobs = [Job(prompt, sampling, tuple(range(load.samples))) for prompt in load.prompts]
    done = list(engine.run(jobs))
    failures = [job.failure for job in done if job.failure is not None]
    if failures:
        raise RuntimeError(failures[0])
    return sum(len(generated.tokens) for job in done for generated in job.answer())


def _run_transformers(engine: Engine, model: Any, load: Load, seed: int) -> int:
    torch.manual_seed(seed)
    width = max(map(len, load.prompts))
    pad = 0 if model.config.pad_token_id is None else model.config.pad_token_id
    tokens = torch.tensor([[*([pad] * (width - len(prompt))), *prompt] for prompt in load.prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in load.prompts])
    with torch.inference_mode():
        grown = model.generate(
            tokens,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=load.samples,
            max_new_tokens=load.max_new_tokens,
            pad_token_id=pad,
            use_cache=True,
        )
    ends = torch.isin(grown[:, width:], torch.tensor(engine.config.eos_token_ids))
    before = (ends.cumsum(1) - ends.long()) == 0
    return int(before.sum())


def _prompts(engine: Engine, count: int) -> list[list[int]]:
    """Prompts of the embedded task where the checkpoint knows its words, random token ids elsewhere."""
    from env.embedded.prompts import read_prompt
    from env.embedded.vocabulary import WORDS

    if engine.config.vocab_size != len(WORDS):
        rng = random.Random(0)
        return [[rng.randrange(3, engine.config.vocab_size) for _ in range(rng.randint(20, 60))] for _ in range(count)]
    chats = []
    for number, example in enumerate(ledger_examples("search", count)):
        fields: Any = example.fields
        story = read_prompt(fields["story"], fields["person"])
        stage, text = ("solve", str(example.stage_gold["read"])) if number % 2 else ("read", story)
        chats.append([Message("system", stage), Message("user", text)])
    return engine.tokenizer.encode_chats(chats)


if __name__ == "__main__":
    main()
