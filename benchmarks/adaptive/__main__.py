"""Chooses on AIME24, judges once on AIME25, prints JSON.

python -m benchmarks.adaptive --pools POOLS.parquet [--orders 200] [--out benchmarks/results/adaptive.json]

The second benchmark is opened only after everything has been chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.adaptive.cascade import SPARE, Chain, choose_cascade
from benchmarks.adaptive.judging import against, described, judge, judge_cascade
from benchmarks.adaptive.pools import MODELS, PROBE_TOKENS, Recording, load
from benchmarks.adaptive.selection import BASELINE, FOLDS, ORDERS, PARTITIONS, SAVING, SEED, Choice, choose

CHOSEN_ON, JUDGED_ON = "aime24", "aime25"
JUDGING_SEED = 25
POOLS = Path("qwen3_math") / "qwen3_aime_pools.parquet"


def main() -> None:
    """Entry point."""
    shared = Path(os.environ.get("APPORTION_SHARED_DATA", Path("..") / "shared" / "data"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptive")
    parser.add_argument("--pools", type=Path, default=shared / POOLS, help="recorded Qwen3 solutions with probes")
    parser.add_argument("--orders", type=int, default=200, help="random orders of the judgement")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    if not options.pools.is_file():
        parser.error(f"{options.pools} is not there; give the recorded pools with --pools")
    started = time.process_time()
    choice, chain = _chosen(load(options.pools, CHOSEN_ON))
    chosen_s = time.process_time() - started
    judged = load(options.pools, JUDGED_ON)
    result = {
        "benchmark": "adaptive",
        "pools": options.pools.name,
        "models": dict(MODELS),
        "probe_tokens": PROBE_TOKENS,
        "selection": _selection(choice, chain),
        "judgement": {
            "on": JUDGED_ON,
            "orders": options.orders,
            "samples_of_each_order": f"{BASELINE.most} of the recorded draws, without replacement",
            **judge(judged, choice.best.controller, options.orders, JUDGING_SEED),
            "cascade": judge_cascade(judged, chain, options.orders, JUDGING_SEED),
        },
        "cpu_seconds": {"selection": round(chosen_s, 1), "all": round(time.process_time() - started, 1)},
    }
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text)


def _chosen(recordings: dict[str, Recording]) -> tuple[Choice, Chain]:
    choice = choose(recordings)
    return choice, choose_cascade(recordings, choice.best.controller, ORDERS, SEED)


def _selection(choice: Choice, chain: Chain) -> dict[str, Any]:
    return {
        "on": CHOSEN_ON,
        "criterion": f"highest accuracy (mean of the four models) among controllers that save at least {SAVING:.0%} of "
        "SC@64's tokens (mean of the four models' shares); of equals the cheaper",
        "candidates": choice.candidates,
        "orders": ORDERS,
        "chosen": described(choice.best.controller),
        "SC@64_accuracy": round(choice.baseline.mean_accuracy(), 4),
        "best_of_family": {
            name: {"controller": described(one.controller), **against(one, choice.baseline)}
            for name, one in choice.by_family.items()
        },
        "cross_validated": {
            "what": f"{FOLDS}-fold over questions, {PARTITIONS} partitions: chosen on nine tenths, scored on the tenth",
            "difference": round(choice.held_out_difference, 4),
            "saved": round(choice.held_out_saving, 4),
        },
        "cascade": {
            "criterion": "fewest FLOPs (2 x parameters x tokens) among cascades of one to three models that are more "
            f"accurate than SC@64 of the largest by {SPARE:g}",
            "chosen": [{"model": link.model, **described(link.controller)} for link in chain],
        },
    }


if __name__ == "__main__":
    main()
