"""A loaded model runner, and sequences to put on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from fllm.batching.runner import ModelRunner, Row, Sampled
from fllm.values import Progress, SamplingParams

BLOCKS = 48
"""So many the contract needs."""


class Line:
    """One sequence: what it has said, and what of it is computed."""

    def __init__(
        self,
        token_ids: Sequence[int],
        table: Sequence[int],
        seed: int,
        sampling: SamplingParams,
        mask: memoryview | None = None,
    ) -> None:
        self.ids = [*token_ids]
        self.table = [*table]
        self.results: list[Sampled] = []
        self.done = 0
        self._prompt_length = len(self.ids)
        self._seed = seed
        self._sampling = sampling
        self._mask = mask

    @property
    def said(self) -> list[int]:
        """Its answer so far."""
        return self.ids[self._prompt_length :]

    def row(self, size: int | None = None) -> Row:
        """Its next so many tokens, or all that are left."""
        start, left = self.done, len(self.ids) - self.done
        size = min(size or left, left)
        self.done += size
        return self._row(start, size, sample=size == left)

    def again(self) -> Row:
        """Its last token once more."""
        return self._row(len(self.ids) - 1, 1, sample=True)

    def guessing(self, drafts: Sequence[int]) -> Row:
        """Its last token, and these guesses of what comes next."""
        row = self._row(len(self.ids) - 1, 1 + len(drafts), sample=True, drafts=len(drafts))
        self.ids += drafts
        return row

    def hear(self, result: Sampled) -> None:
        """Continue with what was sampled, if anything was."""
        self.results.append(result)
        if result.token_id is not None:
            self.ids.append(result.token_id)

    def _allowed(self) -> memoryview:
        assert self._mask
        return self._mask

    def _row(self, start: int, size: int, *, sample: bool, drafts: int = 0) -> Row:
        return Row(
            token_ids=self.ids,
            prompt_length=self._prompt_length,
            start=start,
            count=size,
            block_table=self.table,
            sampling=self._sampling,
            seed=self._seed,
            sample=sample,
            drafts=drafts,
            mask=self._allowed if self._mask and sample else None,
            prompt_logprobs=self._sampling.prompt_logprobs is not None and start < self._prompt_length,
        )


class Bench:
    """A runner with its model loaded and its blocks allocated."""

    def __init__(self, runner: ModelRunner, block_size: int) -> None:
        self.runner = runner
        self.block_size = block_size
        self.told: list[Progress] = []
        self.card = runner.load(self.told.append)
        self.blocks = runner.allocate(block_size)
        self._next = count()

    def line(
        self,
        token_ids: Sequence[int],
        *,
        table: Sequence[int] | None = None,
        seed: int = 0,
        allowed: Sequence[int] | None = None,
        **sampling: Any,
    ) -> Line:
        """A sequence, greedy unless told otherwise, in blocks that others have left dirty.

        ``allowed``: only these tokens may be sampled.
        """
        asked = SamplingParams(**{"max_tokens": 1000, "temperature": 0.0, "logprobs": 2, **sampling})
        blocks = self.table(len(token_ids) + 16) if table is None else table
        return Line(token_ids, blocks, seed, asked, None if allowed is None else self.mask(allowed))

    def mask(self, allowed: Sequence[int]) -> memoryview:
        """One bit for each token, those of the allowed ones set."""
        words = -(-self.card.runtime["vocab_size"] // 32)
        bits = bytearray(4 * words)
        for token in allowed:
            bits[token // 8] |= 1 << token % 8
        return memoryview(bits).cast("i")

    def table(self, tokens: int) -> list[int]:
        """Blocks for so many tokens."""
        return [next(self._next) % self.blocks for _ in range(-(-tokens // self.block_size))]

    def execute(self, rows: Sequence[Row]) -> list[Sampled]:
        """One batch."""
        results = self.runner.execute(rows)
        assert len(results) == len(rows), f"{len(rows)} rows gave {len(results)} results"
        return [*results]

    def advance(self, lines: Sequence[Line], size: int | None = None) -> list[Sampled]:
        """One batch of the next so many tokens of each line."""
        results = self.execute([line.row(size) for line in lines])
        for line, result in zip(lines, results, strict=True):
            line.hear(result)
        return results

    def generate(self, lines: Sequence[Line], tokens: int, size: int | None = None) -> None:
        """Bring each line so many tokens further, its prompt in chunks of ``size``."""
        wanted = {id(line): len(line.ids) + tokens for line in lines}
        while waiting := [line for line in lines if len(line.ids) < wanted[id(line)]]:
            self.advance(waiting, size)
