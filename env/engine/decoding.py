"""The decode batch: rows of many prompts that grow together, one token a step, and leave when they are done.

All rows share one clock. At time ``t`` every row writes its keys and values to cache column ``t``; a prompt admitted at
``t`` has its own copied to the columns just before ``t``, and an additive mask hides the columns before its start.
Storing is then one slice copy a layer, and rows come and go without moving the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from env.backends._base import Sampling
from env.engine.jobs import Grown, Row
from env.engine.model import Block, LlamaModel, Prefill
from env.engine.randomness import uniforms
from env.engine.sampling import RowSampling, pick

STRIDE = 4
"""Decode steps between two looks at what has ended."""

_SPARE = 64
_BLOCK_ELEMENTS = 1 << 20
"""Keys that make a block of rows worth an attention call of its own."""

_MOST_BLOCKS = 8
_WORTH_SPLITTING = 0.9
_IDLE = Sampling()
_Number = TypeVar("_Number", np.int64, np.uint64)
Counts = npt.NDArray[np.int64]


class DecodeBatch:
    """Rows being decoded; used by one thread only."""

    def __init__(self, model: LlamaModel, end_tokens: Sequence[int], max_rows: int) -> None:
        self._model = model
        self._end_tokens = np.asarray(end_tokens, dtype=np.int64)
        self._max_rows = max_rows
        self.clear()

    def clear(self) -> None:
        """Drop all rows and give the cache's memory back."""
        self.rows: list[Row | None] = []
        self._clock = 0
        self._checked = 0
        self._keys = np.zeros(0, np.uint64)
        self._start = np.zeros(0, np.int64)
        self._first = np.zeros(0, np.int64)
        self._limit = np.zeros(0, np.int64)
        self._allocate(0, 0)
        self._narrow(0)
        self._sampling = RowSampling.of([], self._model.device)

    @property
    def active(self) -> int:
        """Rows under way."""
        return sum(row is not None for row in self.rows)

    @property
    def room(self) -> int:
        """Rows that may still be admitted."""
        return self._max_rows - self.active

    def admit(self, prefill: Prefill, lengths: Sequence[int], members: Sequence[tuple[int, Row]]) -> None:
        """Take in rows of freshly prefilled prompts and sample their first tokens.

        Args:
            prefill: the prompts' keys, values and last hidden states.
            lengths: true length of each prompt.
            members: (which prompt, row) pairs, at most `room` of them.
        """
        width = max(lengths[prompt] for prompt, _ in members)
        self.reserve(len(members), width)
        slots = [slot for slot, row in enumerate(self.rows) if row is None][: len(members)]
        sources = [prompt for prompt, _ in members]
        device = self._model.device
        where = torch.tensor(slots, device=device)
        which = torch.tensor(sources, device=device)
        row_lengths = np.asarray([lengths[prompt] for prompt in sources], dtype=np.int64)
        self._copy_prompts(prefill, where, which, row_lengths, width)
        self._register(slots, [row for _, row in members], row_lengths)
        keys = self._keys[slots]
        chance = torch.from_numpy(uniforms(keys, np.zeros(len(slots), np.int64))).to(device)
        sampling = RowSampling.of([row.job.sampling for _, row in members], device)
        logits = self._model.logits(prefill.last_hidden)[which]
        tokens, logprobs = pick(logits, chance, sampling)
        self._tokens[self._clock, where] = tokens
        self._logprobs[self._clock, where] = logprobs
        self._positions[where] = torch.from_numpy(row_lengths).to(device)
        self._sampling = RowSampling.of([row.job.sampling if row else _IDLE for row in self.rows], device)

    def advance(self) -> None:
        """Let every row grow by a few tokens, no further than the longest may."""
        alive = np.array([row is not None for row in self.rows])
        left = int((self._limit - (self._clock - self._first + 1))[alive].max(initial=0))
        steps = min(STRIDE, left)
        if steps <= 0:
            return
        low = int(self._start[alive].min())
        if self._clock + steps >= self._capacity:
            self._move(list(range(len(self.rows))), len(self.rows), low, self._clock - low)
        ahead = (self._clock + 1 - self._first)[None, :] + np.arange(steps)[:, None]
        chance = torch.from_numpy(uniforms(self._keys[None, :], ahead)).to(self._model.device)
        mask, blocks = self._mask[:, None, None, :], self._blocks(alive)
        for step in range(steps):
            now = self._clock
            logits = self._model.decode(self._tokens[now], self._positions, self._cache, now, mask, blocks)
            self._clock += 1
            self._tokens[self._clock], self._logprobs[self._clock] = pick(logits, chance[step], self._sampling)
            self._positions += 1

    def tails(self, slots: Sequence[int], count: int | None = None) -> list[list[int]]:
        """The last ``count`` tokens generated in each slot; all of them by default."""
        low = int(self._first[list(slots)].min()) if count is None else max(0, self._clock + 1 - count)
        window = self._tokens[low : self._clock + 1].cpu().numpy()
        kept = np.minimum(self._clock + 1 - self._first, window.shape[0])
        return [window[window.shape[0] - kept[slot] :, slot].tolist() for slot in slots]

    def harvest(self, stopped: Sequence[int], waiting: bool) -> list[Grown]:
        """Take out the rows that ended: end token, length limit, cancelled job, or named in ``stopped`` (slots)."""
        fresh = self._tokens[self._checked : self._clock + 1].cpu().numpy()
        self._checked = self._clock
        done = np.isin(fresh, self._end_tokens).any(0) | (self._clock - self._first + 1 >= self._limit)
        done[list(stopped)] = True
        leaving = [slot for slot, row in enumerate(self.rows) if row is not None and (done[slot] or row.job.cancelled)]
        grown = self._collect(leaving)
        for slot in leaving:
            self.rows[slot] = None
        idle = torch.tensor([row is None for row in self.rows], device=self._model.device)
        self._positions.masked_fill_(idle, 0)
        if not waiting:
            self._compact()
        return grown

    def _collect(self, slots: list[int]) -> list[Grown]:
        if not slots:
            return []
        low = int(self._first[slots].min())
        where = torch.tensor(slots, device=self._model.device)
        tokens = self._tokens[low : self._clock + 1].index_select(1, where).t().cpu().numpy()
        logprobs = self._logprobs[low : self._clock + 1].index_select(1, where).t().cpu().numpy()
        ends = np.isin(tokens, self._end_tokens)
        grown = []
        for number, slot in enumerate(slots):
            row = self.rows[slot]
            if row is None or row.job.cancelled:
                continue
            begin = int(self._first[slot]) - low
            length = min(row.limit, tokens.shape[1] - begin)
            hits = np.flatnonzero(ends[number, begin : begin + length])
            length = int(hits[0]) + 1 if hits.size else length
            span = slice(begin, begin + length)
            kept = tuple(tokens[number, span].tolist())
            grown.append(Grown(row, kept, tuple(logprobs[number, span].tolist()), ended=bool(hits.size)))
        return grown

    def _blocks(self, alive: npt.NDArray[np.bool_]) -> list[Block]:
        """Ranges of rows with the first column each must see; one range where several would save little.

        Rows are admitted longest prompt first, so that neighbours start at similar columns.
        """
        config, count = self._model.config, len(self.rows)
        starts = np.where(alive, self._start, self._clock)
        elements = count * int(self._clock + 1 - starts.min()) * config.kv_heads * config.head_dim
        parts = min(_MOST_BLOCKS, elements // _BLOCK_ELEMENTS, count)
        if parts < 2:
            return [Block(slice(0, count), int(starts.min()))]
        bounds = [count * part // parts for part in range(parts + 1)]
        blocks = [Block(slice(a, b), int(starts[a:b].min())) for a, b in itertools.pairwise(bounds)]
        low = min(block.low for block in blocks)
        seen = sum((block.rows.stop - block.rows.start) * (self._clock + 1 - block.low) for block in blocks)
        if seen < _WORTH_SPLITTING * count * (self._clock + 1 - low):
            return blocks
        return [Block(slice(0, count), low)]

    def _compact(self) -> None:
        """Close the gaps once an eighth of the rows is gone and nobody waits for their places."""
        active = self.active
        if not active:
            self.clear()
        elif active <= 0.875 * len(self.rows):
            self._pack(active)

    def reserve(self, wanted: int, width: int) -> None:
        """Make places for new rows whose prompts take at most ``width`` columns; done once for several `admit`."""
        kept = [slot for slot, row in enumerate(self.rows) if row is not None]
        low = int(self._start[kept].min()) if kept else self._clock
        clock = max(self._clock - low, width)
        size = max(len(self.rows), len(kept) + wanted)
        if self._clock < width or self._clock >= self._capacity or size > self._held:
            self._move(kept, size, low, clock)
        elif size > len(self.rows):
            self._pack(size)

    def _pack(self, size: int) -> None:
        """Bring the rows to the first slots, in place, and make it ``size`` slots; only rows that fill gaps move."""
        active = self.active
        gaps = [slot for slot in range(active) if self.rows[slot] is None]
        movers = [slot for slot in range(active, len(self.rows)) if self.rows[slot] is not None]
        if gaps:
            where = torch.tensor(gaps, device=self._model.device)
            source = torch.tensor(movers, device=self._model.device)
            past = slice(int(self._start[movers].min()), self._clock)
            for layer in self._cache:
                seen = layer[:, :, past]
                seen.index_copy_(0, where, seen.index_select(0, source))
            self._mask.index_copy_(0, where, self._mask.index_select(0, source))
            self._positions.index_copy_(0, where, self._positions.index_select(0, source))
            for log in (self._tokens, self._logprobs):
                log.index_copy_(1, where, log.index_select(1, source))
        order = list(range(active))
        for gap, mover in zip(gaps, movers, strict=True):
            order[gap] = mover
        self._arrange(order, size)
        self._narrow(size)
        self._positions[active:] = 0

    def _move(self, kept: list[int], size: int, low: int, clock: int) -> None:
        """Rebuild for ``size`` rows: the kept slots first, their columns from ``low`` on ending before ``clock``."""
        old = (self._cache, self._tokens, self._logprobs, self._positions)
        span, shift = self._clock - low, clock - self._clock
        fits = clock + _SPARE // 2 < self._capacity and self._capacity <= 4 * (clock + _SPARE)
        spare_rows = size // 2 if kept else 0
        self._allocate(
            min(self._max_rows, size + spare_rows), self._capacity if fits else clock + max(_SPARE, clock // 2)
        )
        self._narrow(size)
        count, source, target = len(kept), slice(low, low + span + 1), slice(clock - span, clock + 1)
        if count:
            where = torch.tensor(kept, dtype=torch.int64, device=self._model.device)
            past, past_to = slice(low, low + span), slice(clock - span, clock)
            for new_layer, old_layer in zip(self._cache, old[0], strict=True):
                new_layer[:count, :, past_to] = old_layer[:, :, past].index_select(0, where)
            self._tokens[target, :count] = old[1][source].index_select(1, where)
            self._logprobs[target, :count] = old[2][source].index_select(1, where)
            self._positions[:count] = old[3][where]
        self._start += shift
        self._first += shift
        self._clock += shift
        self._checked += shift
        self._arrange(kept, size)
        starts = torch.from_numpy(np.maximum(self._start[:count], 0)).to(self._model.device)
        hidden = torch.arange(self._capacity, device=self._model.device)[None, :] < starts[:, None]
        self._mask[:count].masked_fill_(hidden, float("-inf"))

    def _arrange(self, order: list[int], size: int) -> None:
        """Bring what is known of the rows into the given order of slots, and empty slots up to ``size``."""
        count = len(order)
        self.rows = [*(self.rows[slot] for slot in order), *([None] * (size - count))]
        self._keys = _resized(self._keys, order, size)
        self._limit = _resized(self._limit, order, size)
        self._start = _resized(self._start, order, size)
        self._first = _resized(self._first, order, size)
        self._start[count:] = self._first[count:] = self._clock
        rows = [row.job.sampling if row else _IDLE for row in self.rows]
        self._sampling = RowSampling.of(rows, self._model.device)

    def _allocate(self, held: int, capacity: int) -> None:
        """Buffers for ``held`` rows and ``capacity`` columns; zeroed, since masked columns must be finite too."""
        config, model = self._model.config, self._model
        shape = (held, 2 * config.kv_heads, capacity, config.head_dim)
        self._held, self._capacity = held, capacity
        self._all_cache = [torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(config.layers)]
        self._all_mask = torch.zeros((held, capacity), dtype=model.dtype, device=model.device)
        self._all_tokens = torch.zeros((capacity, held), dtype=torch.int64, device=model.device)
        self._all_logprobs = torch.zeros((capacity, held), dtype=torch.float32, device=model.device)
        self._all_positions = torch.zeros(held, dtype=torch.int64, device=model.device)

    def _narrow(self, size: int) -> None:
        """Work on the first ``size`` rows of the buffers."""
        self._cache = [layer[:size] for layer in self._all_cache]
        self._mask = self._all_mask[:size]
        self._tokens = self._all_tokens[:, :size]
        self._logprobs = self._all_logprobs[:, :size]
        self._positions = self._all_positions[:size]

    def _copy_prompts(self, prefill: Prefill, where: Tensor, which: Tensor, lengths: Counts, width: int) -> None:
        """Copy each prompt's keys and values to the columns that end before the clock."""
        device = self._model.device
        starts = torch.from_numpy(width - lengths).to(device)
        columns = (torch.arange(width, device=device)[None, :] - starts[:, None]).clamp_(min=0)
        target = slice(self._clock - width, self._clock)
        first, count = int(where[0]), len(where)
        together = int(where[-1]) - first + 1 == count
        for layer, kept in zip(self._cache, prefill.keys_values, strict=True):
            block = kept[which[:, None], columns].permute(0, 2, 1, 3)
            if together:
                layer[first : first + count, :, target] = block
            else:
                layer[:, :, target].index_copy_(0, where, block)
        begin = (self._clock - torch.from_numpy(lengths).to(device))[:, None]
        hidden = torch.arange(self._capacity, device=device)[None, :] < begin
        zeros = torch.zeros(hidden.shape, dtype=self._model.dtype, device=device)
        self._mask[where] = zeros.masked_fill_(hidden, float("-inf"))

    def _register(self, slots: list[int], rows: Sequence[Row], lengths: Counts) -> None:
        for slot, row in zip(slots, rows, strict=True):
            self.rows[slot] = row
        self._limit[slots] = [row.limit for row in rows]
        self._keys[slots] = [row.key for row in rows]
        self._start[slots] = self._clock - lengths
        self._first[slots] = self._clock
        furthest = max(int(length) + row.limit for length, row in zip(lengths, rows, strict=True))
        self._model.reserve_positions(furthest + STRIDE + 1)


def _resized(values: npt.NDArray[_Number], kept: list[int], size: int) -> npt.NDArray[_Number]:
    """The kept entries, then zeros up to ``size``."""
    out = np.zeros(size, values.dtype)
    out[: len(kept)] = values[kept]
    return out
