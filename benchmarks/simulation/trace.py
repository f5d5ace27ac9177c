"""Traces of requests: read from Mooncake's files, or generated with the figures of public ones.

Tokens are not part of a trace. Requests with the same ids of blocks at the beginning have the same prefix.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

FILE_BLOCK = 512
"""Tokens of a block in Mooncake's files (arXiv 2407.00079, section 4)."""
GENERATED_BLOCK = 16
"""Tokens of a block in generated traces: that of the engine, so no shared token is lost."""


class TraceRequest(Struct, frozen=True):
    """One request of a trace."""

    arrival: float
    """Seconds since the start of the trace."""
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()
    """Ids of the blocks of the prompt and, in generated traces, of the output."""
    previous: int = -1
    """Index of the request that must end before this one arrives; -1 for none."""


class Trace(Struct, frozen=True):
    """Requests in the order of their arrival."""

    requests: list[TraceRequest]
    block_tokens: int

    def prompt(self, index: int) -> list[int]:
        """Return the tokens of a prompt, the same for equal blocks."""
        request = self.requests[index]
        tokens = chain.from_iterable(repeat(each, self.block_tokens) for each in request.hash_ids)
        prompt = [token for token, _ in zip(tokens, range(request.input_length), strict=False)]
        return prompt + [-1 - index] * (request.input_length - len(prompt))

    def token(self, index: int, position: int) -> int:
        """Return the token at a position of the output: one of its own where the trace does not know it."""
        block = position // self.block_tokens
        ids = self.requests[index].hash_ids
        return ids[block] if block < len(ids) else -1 - index

    def at_rate(self, rate: float) -> Trace:
        """Return the trace with this number of requests per second: its times are scaled."""
        if len(self.requests) < 2 or not self.requests[-1].arrival:
            return self
        factor = (len(self.requests) - 1) / rate / self.requests[-1].arrival
        return replace(
            self, requests=[replace(each, arrival=each.arrival * factor) for each in self.requests]
        )

    def first(self, count: int) -> Trace:
        """Return the first requests."""
        return replace(self, requests=self.requests[:count])

    def at_once(self) -> Trace:
        """Return the trace with all requests at its start, in their order."""
        requests = [replace(each, arrival=0.0, previous=-1) for each in self.requests]
        return replace(self, requests=requests)

    def without_outputs(self) -> Trace:
        """Return the trace without the ids of its outputs, which a real model does not generate."""
        size = self.block_tokens
        return replace(
            self,
            requests=[
                replace(each, hash_ids=each.hash_ids[: -(-each.input_length // size)])
                for each in self.requests
            ],
        )

    def within(self, max_model_len: int) -> Trace:
        """Return the trace with prompts cut so that they and their outputs fit."""
        return replace(self, requests=[_cut(each, max_model_len) for each in self.requests])

    def scaled(self, factor: float) -> Trace:
        """Return the trace with all lengths scaled, and what requests share of them."""
        size = max(round(self.block_tokens * factor), 1)
        factor = size / self.block_tokens
        requests = [
            replace(
                each,
                input_length=max(round(each.input_length * factor), 1),
                output_length=max(round(each.output_length * factor), 1),
            )
            for each in self.requests
        ]
        return Trace(requests, size)

    def with_tokens(self, first: int, last: int) -> Trace:
        """Return the trace with ids of blocks that are tokens of a model, from ``first`` to ``last``."""
        size = last - first
        requests = [
            replace(each, hash_ids=tuple(first + block % size for block in each.hash_ids))
            for each in self.requests
        ]
        return replace(self, requests=requests)

    def ideal_hits(self) -> float:
        """Return the share of prompt tokens that one unlimited cache for all would have."""
        seen: set[int] = set()
        hits = 0
        for each in self.requests:
            for index, block in enumerate(each.hash_ids):
                if block not in seen:
                    break
                hits += min(self.block_tokens, max(each.input_length - index * self.block_tokens, 0))
            seen.update(each.hash_ids)
        return hits / max(sum(each.input_length for each in self.requests), 1)


def _cut(request: TraceRequest, max_model_len: int) -> TraceRequest:
    output = min(request.output_length, max_model_len // 2)
    length = min(request.input_length, max_model_len - output)
    return replace(request, input_length=length, output_length=output)


class _Line(Struct):
    timestamp: float
    """Milliseconds."""
    input_length: int
    output_length: int
    hash_ids: list[int]


def read_trace(file: Path, block_tokens: int = FILE_BLOCK) -> Trace:
    """Return the trace of a file in Mooncake's format; raise `ValueError` with the line that is wrong."""
    requests = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
        if read.input_length < 1 or read.output_length < 0:
            raise ValueError(f"{file}, line {number}: lengths must be positive")
        output = max(read.output_length, 1)
        requests.append(TraceRequest(read.timestamp / 1000, read.input_length, output, tuple(read.hash_ids)))
    return Trace(sorted(requests, key=lambda each: each.arrival), block_tokens)


def write_trace(trace: Trace, file: Path) -> None:
    """Write a trace in Mooncake's format, with the blocks of prompts alone."""
    lines = [
        msgspec.json.encode(
            _Line(each.arrival * 1000, each.input_length, each.output_length, list(each.hash_ids))
        )
        for each in trace.without_outputs().requests
    ]
    file.write_bytes(b"\n".join(lines) + b"\n")


class LogNormal(Struct, frozen=True):
    """A distribution of lengths."""

    median: float
    sigma: float
    largest: int

    def sample(self, source: random.Random) -> int:
        """Return a length, at least 1."""
        return min(max(round(source.lognormvariate(math.log(self.median), self.sigma)), 1), self.largest)


class Shape(Struct, frozen=True, kw_only=True):
    """What a generated trace looks like, at the rate of the public one."""

    prompt: LogNormal
    """New tokens of the first turn of a chat."""
    turn: LogNormal
    """New tokens of each later turn."""
    output: LogNormal
    turns: float = 1.0
    """Mean number of turns, whose number is geometric."""
    pause: float = 30.0
    """Mean seconds between two turns, exponential."""
    prefixes: tuple[int, ...] = ()
    """Lengths of the system prompts and tools with which chats begin, the most frequent first (Zipf)."""
    rate: float
    """Requests per second."""
    variation: float = 1.0
    """Coefficient of variation of the gaps between chats, which have a gamma distribution."""


SHAPES = {
    # Azure's trace "conversation" of 2023 (arXiv 2311.18677; github.com/Azure/AzurePublicDataset): 19,366
    # requests in 3,502 s, prompts of 1,020 tokens (median), outputs of 129, gaps with a variation of 1.09. It
    # does not say what requests share.
    "azure-conversation": Shape(
        prompt=LogNormal(1020, 0.6, 14_050),
        turn=LogNormal(1, 0, 1),
        output=LogNormal(150, 0.82, 1000),
        rate=5.5,
        variation=1.1,
    ),
    # The same for "code": 8,819 requests in 3,436 s, prompts of 1,469, outputs of 13, in bursts
    # (variation 13).
    "azure-code": Shape(
        prompt=LogNormal(1469, 0.85, 7437),
        turn=LogNormal(1, 0, 1),
        output=LogNormal(13, 1.1, 1899),
        rate=2.6,
        variation=5.0,
    ),
    # Mooncake's "conversation" (FAST'25; github.com/kvcache-ai/Mooncake): 12,031 requests in 3,537 s, 12,035
    # tokens in and 343 out in the mean. All share the first block; 37 % of the tokens come again.
    "mooncake-conversation": Shape(
        prompt=LogNormal(5200, 1.2, 100_000),
        turn=LogNormal(900, 1.0, 30_000),
        output=LogNormal(300, 0.5, 2000),
        turns=1.5,
        pause=70.0,
        prefixes=(512,),
        rate=3.4,
    ),
    # Mooncake's "tool and agent" (FAST'25): 8,596 in, 182 out, 59 % of the tokens come again. Its requests
    # begin with one of several long system prompts.
    "mooncake-agents": Shape(
        prompt=LogNormal(2300, 1.1, 60_000),
        turn=LogNormal(500, 1.0, 8000),
        output=LogNormal(90, 1.2, 2000),
        turns=1.3,
        pause=40.0,
        prefixes=(5600, 6100, 2500, 3900, 6900, 1800, 4400, 3000),
        rate=6.6,
    ),
    # BurstGPT (arXiv 2401.17644) finds gaps with a gamma distribution, far burstier than a Poisson process.
    # The chats are ours: short turns, one system prompt.
    "bursty-chats": Shape(
        prompt=LogNormal(120, 0.9, 4000),
        turn=LogNormal(60, 0.9, 2000),
        output=LogNormal(180, 0.7, 1000),
        turns=4.0,
        pause=25.0,
        prefixes=(400,),
        rate=5.0,
        variation=2.5,
    ),
}


def generate(shape: Shape, count: int, seed: int = 0) -> Trace:
    """Return a trace of ``count`` requests. Chats that began before it are cut at its start."""
    source = random.Random(seed)
    blocks = _Blocks()
    prefixes = [blocks.new(length) for length in shape.prefixes]
    chats: list[list[TraceRequest]] = []
    mean_gap, shape_k = shape.turns / shape.rate, 1 / shape.variation**2
    now, end = -2 * shape.turns * shape.pause * (shape.turns > 1), count / shape.rate
    while now < end * 1.5 + 60:
        now += source.gammavariate(shape_k, mean_gap / shape_k)
        chats.append(list(_chat(shape, source, blocks, prefixes, now)))
    return _merge(chats, count)


class _Blocks:
    """New ids of blocks."""

    def __init__(self) -> None:
        self._next = 0

    def new(self, tokens: int) -> list[int]:
        """Return ids for a number of tokens; the last block may be partly used."""
        count = -(-tokens // GENERATED_BLOCK)
        self._next += count
        return list(range(self._next - count, self._next))


def _chat(
    shape: Shape, source: random.Random, blocks: _Blocks, prefixes: Sequence[list[int]], start: float
) -> Iterator[TraceRequest]:
    """Yield the turns of a chat. A turn's prompt is all that was said before, and something new."""
    ids: list[int] = []
    if prefixes:
        [chosen] = source.choices(prefixes, [1 / rank for rank in range(1, len(prefixes) + 1)])
        ids = list(chosen)
    new, now = shape.prompt, start
    while True:
        ids += blocks.new(new.sample(source))
        length, output = len(ids) * GENERATED_BLOCK, shape.output.sample(source)
        ids += blocks.new(output)
        yield TraceRequest(now, length, output, tuple(ids))
        if source.random() >= 1 - 1 / shape.turns:
            return
        now += source.expovariate(1 / shape.pause)
        new = shape.turn


def _merge(chats: Sequence[Sequence[TraceRequest]], count: int) -> Trace:
    """Return the first requests from time 0 on, each with the index of the turn before it."""
    turns = sorted(
        (request.arrival, chat, turn)
        for chat, all_turns in enumerate(chats)
        for turn, request in enumerate(all_turns)
        if request.arrival >= 0
    )[:count]
    index = {(chat, turn): position for position, (_, chat, turn) in enumerate(turns)}
    requests = [
        replace(chats[chat][turn], previous=index.get((chat, turn - 1), -1)) for _, chat, turn in turns
    ]
    return Trace(requests, GENERATED_BLOCK)
