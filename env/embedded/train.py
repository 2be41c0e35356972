"""Retrains the embedded models: ``python -m env.embedded.train --all``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from env.embedded.checkpoints import CHECKPOINT_NAMES, CRITIC_NAME, VERIFIER_NAME, WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train what it names, one after another, each on one thread."""
    parser = argparse.ArgumentParser(prog="python -m env.embedded.train", description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help="the four models, then the verifier and the critic")
    chosen.add_argument("--model", choices=CHECKPOINT_NAMES, help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="decides initial weights and data (default 0)")
    parser.add_argument("--steps", type=int, help="instead of the recipe's; the schedule shrinks with it")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the checkpoints")
    options = parser.parse_args(arguments)
    for name in CHECKPOINT_NAMES if options.all else [options.model]:
        if name == VERIFIER_NAME:
            _train_verifier(options.out, options.seed, options.steps)
        elif name == CRITIC_NAME:
            _train_critic(options.out, options.seed, options.steps)
        else:
            _train_model(name, options.out, options.seed, options.steps)


def _train_model(name: str, out: Path, seed: int, steps: int | None) -> None:
    from env.embedded.training import RECIPES, train_model

    recipe = RECIPES[name] if steps is None else replace(RECIPES[name], steps=steps)
    train_model(name, out / name, recipe, seed)


def _train_verifier(out: Path, seed: int, steps: int | None) -> None:
    from env.embedded.verifier import VERIFIER_RECIPE, train_verifier

    recipe = VERIFIER_RECIPE if steps is None else replace(VERIFIER_RECIPE, steps=steps)
    train_verifier(out, recipe, seed)


def _train_critic(out: Path, seed: int, steps: int | None) -> None:
    from env.embedded.critic import CRITIC_RECIPE, train_critic

    recipe = CRITIC_RECIPE if steps is None else replace(CRITIC_RECIPE, steps=steps)
    train_critic(out, recipe, seed)


if __name__ == "__main__":
    main()
