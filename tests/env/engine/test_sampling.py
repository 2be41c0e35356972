"""Tokens come out as often as the softmax says, with and without top-p."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from env.backends import Sampling
from env.engine.randomness import draw_keys, prompt_key, uniforms
from env.engine.sampling import RowSampling, invert_cdf, keep_top_p, pick

DRAWS = 20_000
CPU = torch.device("cpu")


def uniform(count: int, seed: int) -> torch.Tensor:
    keys = draw_keys(prompt_key([1, 2, 3], Sampling(seed=seed)), range(count))
    return torch.from_numpy(uniforms(keys, np.zeros(count, np.int64)))


def counts(logits: torch.Tensor, sampling: Sampling, seed: int) -> np.ndarray:
    rows = RowSampling.of([sampling], CPU)
    wide = RowSampling(
        rows.temperature.expand(DRAWS, 1), rows.top_p.expand(DRAWS, 1), rows.greedy.expand(DRAWS),
        rows.plain, rows.any_greedy, rows.all_greedy, rows.any_top_p,
    )  # fmt: skip
    tokens, _ = pick(logits.expand(DRAWS, -1), uniform(DRAWS, seed), wide)
    return torch.bincount(tokens, minlength=logits.numel()).numpy()


def nucleus(logits: torch.Tensor, sampling: Sampling) -> np.ndarray:
    """The distribution by the definition, token by token."""
    probabilities = (logits.double() / sampling.temperature).softmax(-1).numpy()
    kept, total = np.zeros_like(probabilities), 0.0
    for token in np.argsort(-probabilities, kind="stable"):
        if total >= sampling.top_p:
            break
        kept[token] = probabilities[token]
        total += probabilities[token]
    return kept / kept.sum()


@settings(max_examples=25, deadline=None)
@given(
    # Rounded: float32 orders values that differ by less than its precision in any way.
    values=st.lists(st.floats(-3, 3).map(lambda v: round(v, 3)), min_size=2, max_size=12),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.9, 0.55]),
    seed=st.integers(0, 3),
)
def test_frequencies_follow_the_distribution(values: list[float], temperature: float, top_p: float, seed: int) -> None:
    logits = torch.tensor(values, dtype=torch.float32)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    expected = nucleus(logits, sampling)
    found = counts(logits, sampling, seed)
    boundary = np.abs(np.cumsum(np.sort(nucleus(logits, Sampling(temperature=temperature)))[::-1]) - top_p).min()
    if top_p < 1 and boundary < 1e-6:
        return  # float32 and float64 may disagree on the last token kept
    assert found[expected == 0].sum() == 0
    likely = expected * DRAWS >= 5
    rest_found, rest_expected = found[~likely].sum(), expected[~likely].sum() * DRAWS
    if likely.sum() > 1:
        share = found[likely].sum() / (expected[likely].sum() * DRAWS)
        assert chisquare(found[likely], expected[likely] * DRAWS * share).pvalue > 1e-6
    assert abs(rest_found - rest_expected) < 40


def test_greedy_rows_take_the_best_token_among_sampled_ones() -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    rows = RowSampling.of([Sampling(temperature=n % 2) for n in range(40)], CPU)
    tokens, logprobs = pick(logits, uniform(40, 1), rows)
    assert torch.equal(tokens[::2], logits.argmax(-1)[::2])
    assert torch.allclose(logprobs, logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1))


def test_log_probabilities_are_at_temperature_one_before_top_p() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    tokens, logprob = pick(logits, torch.tensor([0.0], dtype=torch.float64), RowSampling.of([Sampling(0.3, 0.5)], CPU))
    assert torch.allclose(logprob, logits.log_softmax(-1)[:, tokens[0]])


def test_extreme_uniforms_never_choose_impossible_tokens() -> None:
    weights = torch.tensor([[0.0, 0.4, 0.0, 0.6, 0.0]]).expand(2, -1)
    edge = torch.tensor([0.0, 1 - 2.0**-52], dtype=torch.float64)
    assert invert_cdf(weights, edge).tolist() == [1, 3]


def test_top_p_keeps_the_best_token_even_where_it_is_tiny() -> None:
    kept = keep_top_p(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[1e-9]], dtype=torch.float64))
    assert kept.tolist() == [[0.0, 0.5, 0.0]]


@given(seed=st.integers(-(2**40), 2**40), index=st.integers(0, 2**40), position=st.integers(0, 10_000))
def test_uniforms_are_below_one_and_depend_on_nothing_else(seed: int, index: int, position: int) -> None:
    def value(neighbours: int) -> float:
        keys = draw_keys(prompt_key([5, 6], Sampling(seed=seed)), [index, *range(neighbours)])
        return float(uniforms(keys, np.full(neighbours + 1, position))[0])

    assert value(0) == value(7)
    assert 0 <= value(0) < 1


def test_every_part_of_a_draw_changes_its_random_numbers() -> None:
    changed = [Sampling(), Sampling(seed=1), Sampling(0.5), Sampling(top_p=0.5), Sampling(max_tokens=9)]
    parts = [([1, 2], sampling) for sampling in (*changed, Sampling(stop=("x",)))] + [([1, 3], Sampling())]
    keys = np.concatenate([draw_keys(prompt_key(tokens, sampling), range(3)) for tokens, sampling in parts])
    values = uniforms(keys[None, :], np.arange(50)[:, None])
    assert np.unique(values).size == values.size


def test_neighbouring_draws_and_positions_are_uncorrelated() -> None:
    keys = draw_keys(prompt_key([1], Sampling()), range(400))
    values = uniforms(keys[None, :], np.arange(400)[:, None])
    assert abs(values.mean() - 0.5) < 0.004
    for one, other in ((values[:-1], values[1:]), (values[:, :-1], values[:, 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015
