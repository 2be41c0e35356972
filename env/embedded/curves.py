"""Measures the embedded models: ``python -m env.embedded.curves stages|pipeline|verifier|critic``.

Prints Markdown tables, then JSON.

``stages`` gives every stage gold inputs and draws from every model: accuracy of the majority vote by samples.
``pipeline`` feeds each stage what the one before really wrote, and finds the best allocation at each budget.
``verifier`` lets the verifier pick the answer (best-of-n) or weigh the vote, and asks what its scores mean.
``critic`` lets the critic judge, revise and fuse answers of the solve stage.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from env.embedded.checkpoints import CRITIC_NAME, MODEL_NAMES, VERIFIER_NAME, checkpoint_path
from env.embedded.ledger import ledger_examples
from env.embedded.prompts import TEMPERATURE, parse_ids, parse_ledger, parse_number, read_prompt, retrieve_prompt
from env.embedded.sampling import Sampler
from env.embedded.vocabulary import STAGES, encode, prompt_text
from env.tasks.example import Example

PARSERS = {"retrieve": parse_ids, "read": parse_ledger, "solve": parse_number}
_RESAMPLES = 16


@dataclass(frozen=True)
class StageCurve:
    """One model on one stage with gold inputs."""

    stage: str
    model: str
    parameters: int
    prompt_tokens: float
    output_tokens: float
    temperature: float
    vote: dict[int, float]
    """Accuracy of the majority vote by number of samples."""

    greedy: float
    union: dict[int, tuple[float, float]]
    """Retrieve only: recall of the union of k samples, and the distractors it passes on, both means a story."""

    def megaflops(self, samples: int) -> float:
        """Cost of one query: the prompt once, each sample's tokens; 2 FLOPs a parameter and token."""
        return 2 * self.parameters * (self.prompt_tokens + samples * self.output_tokens) / 1e6


def vote(answers: Sequence[object]) -> object:
    """The most frequent answer that could be parsed, the earliest on a tie; None if none could."""
    counted = Counter(answer for answer in answers if answer is not None)
    return counted.most_common(1)[0][0] if counted else None


def stage_inputs(stage: str, example: Example) -> tuple[str, object]:
    """User message of a stage when all before it were right, and its gold answer."""
    story, person = list(example.fields["story"]), str(example.fields["person"])  # type: ignore[arg-type]
    sentences = [str(sentence) for sentence in story]
    relevant: list[int] = example.stage_gold["retrieve"]  # type: ignore[assignment]
    ledger = str(example.stage_gold["read"])
    if stage == "retrieve":
        return retrieve_prompt(sentences, person), tuple(relevant)
    if stage == "read":
        return read_prompt([sentences[number - 1] for number in relevant], person), ledger
    return ledger, example.answers[0]


def measure_stage(
    sampler: Sampler, model: str, stage: str, examples: Sequence[Example], samples: int, temperature: float
) -> StageCurve:
    """Draw ``samples`` for each example and average the vote over random subsets of every smaller size."""
    users, gold = zip(*(stage_inputs(stage, example) for example in examples), strict=True)
    drawn = sampler.sample(stage, users, samples, temperature)
    greedy = sampler.sample(stage, users, 1, 0.0)
    parse = PARSERS[stage]
    answers = [[parse(one.text) for one in row] for row in drawn]
    rng = random.Random(f"{stage} {model}")
    sizes = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    union = dict[int, tuple[float, float]]()
    if stage == "retrieve":
        union = {size: _union_quality(answers, gold, examples, size, rng) for size in sizes}
    return StageCurve(
        stage=stage,
        model=model,
        parameters=sampler.parameters,
        prompt_tokens=fmean(len(encode(prompt_text(stage, user))) for user in users),
        output_tokens=fmean(one.tokens for row in drawn for one in row),
        temperature=temperature,
        vote={size: _vote_accuracy(answers, gold, size, rng) for size in sizes},
        greedy=fmean(parse(row[0].text) == wanted for row, wanted in zip(greedy, gold, strict=True)),
        union=union,
    )


def _vote_accuracy(answers: Sequence[Sequence[object]], gold: Sequence[object], size: int, rng: random.Random) -> float:
    return fmean(
        vote(rng.sample(row, size)) == wanted
        for row, wanted in zip(answers, gold, strict=True)
        for _ in range(_RESAMPLES)
    )


def _union_quality(
    answers: Sequence[Sequence[object]],
    gold: Sequence[object],
    examples: Sequence[Example],
    size: int,
    rng: random.Random,
) -> tuple[float, float]:
    recalls, distractors = list[float](), list[float]()
    for row, wanted, example in zip(answers, gold, examples, strict=True):
        longest = len(example.fields["story"])  # type: ignore[arg-type]
        for _ in range(_RESAMPLES):
            merged = union_of(rng.sample(row, size), longest)
            recalls.append(len(merged & set(wanted)) / len(wanted))  # type: ignore[call-overload, arg-type]
            distractors.append(len(merged - set(wanted)))  # type: ignore[call-overload]
    return fmean(recalls), fmean(distractors)


def union_of(answers: Sequence[object], longest: int) -> set[int]:
    """Sentence numbers named by any parsed answer and present in a story of ``longest`` sentences."""
    return {number for answer in answers if isinstance(answer, tuple) for number in answer if number <= longest}


def stage_table(curves: Sequence[StageCurve]) -> str:
    """Markdown: a row for each stage and model, a column for each number of samples."""
    sizes = list(curves[0].vote)
    lines = [
        "| stage | model | prompt | output | MFLOPs k=1 | greedy | " + " | ".join(f"k={size}" for size in sizes) + " |",
        "|---" * (6 + len(sizes)) + "|",
    ]
    for curve in curves:
        cells = [curve.stage, curve.model, f"{curve.prompt_tokens:.1f}", f"{curve.output_tokens:.1f}"]
        cells += [
            f"{curve.megaflops(1):.1f}",
            f"{curve.greedy:.3f}",
            *(f"{value:.3f}" for value in curve.vote.values()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def union_table(curves: Sequence[StageCurve]) -> str:
    """Markdown: recall and passed distractors of the union of k retrievals."""
    chosen = [curve for curve in curves if curve.union]
    sizes = list(chosen[0].union)
    lines = ["| model | " + " | ".join(f"k={size}" for size in sizes) + " |", "|---" * (1 + len(sizes)) + "|"]
    for curve in chosen:
        cells = (f"{recall:.3f} + {extra:.2f}" for recall, extra in curve.union.values())
        lines.append(f"| {curve.model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the measurements."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(prog="python -m env.embedded.curves", description=__doc__)
    parser.add_argument("what", choices=["stages", "pipeline", "verifier", "critic"])
    parser.add_argument("--split", default="search")
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--samples", type=int, default=64, help="draws a prompt, for stages")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--difficulty", default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    examples = ledger_examples(options.split, options.examples, options.seed, options.difficulty)
    samplers = {name: Sampler(checkpoint_path(name), options.seed) for name in MODEL_NAMES}
    if options.what == "pipeline":
        from env.embedded.frontier import measure_pipeline, pipeline_report

        print(pipeline_report(measure_pipeline(samplers, examples, options.temperature)))
        return
    if options.what == "verifier":
        from env.embedded.best_of_n import best_of_n_report, measure_best_of_n

        verifier = checkpoint_path(VERIFIER_NAME)
        print(best_of_n_report(*measure_best_of_n(samplers, verifier, examples, options.temperature)))
        return
    if options.what == "critic":
        from env.embedded.criticism import criticism_report, measure_critic

        critic = Sampler(checkpoint_path(CRITIC_NAME), options.seed)
        print(criticism_report(measure_critic(samplers, critic, examples, options.temperature)))
        return
    curves = [
        measure_stage(samplers[name], name, stage, examples, options.samples, options.temperature)
        for stage in STAGES
        for name in MODEL_NAMES
    ]
    print(stage_table(curves), union_table(curves), sep="\n\n")
    print(json.dumps([{**vars(curve)} for curve in curves]))


if __name__ == "__main__":
    main()
