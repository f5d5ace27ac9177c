"""The loads of a comparison, and the rows of its table with their bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

STREAMS = 1, 4, 8, 16

Scale = Literal["small", "large"]
"""Which bars hold: those of the embedded model, or those of a model of 1B."""


class Sizes(Struct, frozen=True, kw_only=True):
    """How long the loads are. Fewer requests of a larger model take as long."""

    requests: int
    """Requests per stream of a throughput load; at 1 stream, two more."""
    tokens: int
    prompts: int
    """Uncached prompts of 512 words."""
    context: int
    turns: int
    prefix: int
    growth: int
    agent_tokens: int


SIZES: dict[Scale, Sizes] = {
    "small": Sizes(
        requests=2,
        tokens=64,
        prompts=6,
        context=7000,
        turns=10,
        prefix=4000,
        growth=200,
        agent_tokens=64,
    ),
    "large": Sizes(
        requests=1,
        tokens=64,
        prompts=2,
        context=7000,
        turns=10,
        prefix=4000,
        growth=120,
        agent_tokens=32,
    ),
}
QUICK = Sizes(requests=1, tokens=8, prompts=1, context=600, turns=2, prefix=900, growth=120, agent_tokens=8)
"""To see that everything works."""


class Load(Struct, frozen=True):
    """What a server receives: arguments of ``furiosa-llm bench``."""

    name: str
    arguments: tuple[str, ...]


def bench_loads(sizes: Sizes) -> list[Load]:
    """Return the loads in the order in which they are measured."""
    return [
        *(
            Load(
                f"throughput-{streams}",
                _arguments(
                    "throughput",
                    concurrency=streams,
                    requests=streams * sizes.requests + 2 * (streams == 1),
                    tokens=sizes.tokens,
                ),
            )
            for streams in STREAMS
        ),
        Load("prefill", _arguments("prefill", requests=sizes.prompts, words=512)),
        Load("long-context", _arguments("long-context", context=sizes.context, tokens=sizes.tokens)),
        Load(
            "agents",
            _arguments(
                "agents",
                turns=sizes.turns,
                prefix_tokens=sizes.prefix,
                growth_tokens=sizes.growth,
                tokens=sizes.agent_tokens,
            ),
        ),
    ]


def _arguments(workload: str, **options: int) -> tuple[str, ...]:
    named = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items())
    return (workload, *(part for pair in named for part in pair))


ONCE = "memory", "constrained", "quality"
"""Measured once, after the rounds: peak memory, constrained streams over free ones, KL divergence."""


LONG = "long-context", "agents"
"""Loads that take long: all rounds of the others come first."""
LOADS = "throughput", "prefill", *LONG, *ONCE


class Row(Struct, frozen=True, kw_only=True):
    """A row of the table: one metric of a load."""

    title: str
    load: str
    metric: str
    better: Literal["higher", "lower"] = "higher"
    bars: dict[Scale, float] = {}
    """Least ratio of ours to the best peer."""
    limits: dict[Scale, float] = {}
    """Most that ours may have, or the least if more is better, whatever the peers have."""
    not_worse_than: dict[Scale, str] = {}
    """Peer whose value ours must reach."""
    scale: float = 1.0
    """Factor from the metric's unit to that of the title."""


KL = Row(
    title="mean KL from float32",
    load="quality",
    metric="mean_kl",
    better="lower",
    not_worse_than={"small": "llama.cpp Q8_0", "large": "llama.cpp file"},
)


def _throughput(streams: int, small: float, large: float) -> Row:
    return Row(
        title=f"{streams} stream{'s' * (streams > 1)}, tokens/s",
        load=f"throughput-{streams}",
        metric="output_tokens_per_s",
        bars={"small": small, "large": large},
    )


ROWS: Sequence[Row] = (
    _throughput(1, 1.3, 1.1),
    _throughput(4, 1.3, 1.3),
    _throughput(8, 1.3, 1.3),
    _throughput(16, 1.3, 1.3),
    Row(
        title="prompts of 512, tokens/s",
        load="prefill",
        metric="prompt_tokens_per_s",
        bars={"small": 1.3, "large": 1.3},
    ),
    Row(
        title="prompt of 7,000, TTFT, s",
        load="long-context",
        metric="ttft_p50_ms",
        scale=0.001,
        better="lower",
        bars={"small": 1.3, "large": 1.2},
    ),
    Row(
        title="decode at 7,000, ms per token",
        load="long-context",
        metric="tpot_p50_ms",
        better="lower",
        bars={"small": 1.5, "large": 1.3},
    ),
    Row(
        title="agents, requests/s",
        load="agents",
        metric="requests_per_s",
        bars={"small": 1.5, "large": 1.3},
    ),
    Row(
        title="constrained JSON / own free text",
        load="constrained",
        metric="ratio",
        limits={"small": 1.0},
    ),
    Row(
        title="memory while loading / file",
        load="memory",
        metric="loading_to_file",
        better="lower",
        limits={"large": 1.3},
    ),
    Row(
        title="memory while serving / file",
        load="memory",
        metric="serving_to_file",
        better="lower",
        limits={"large": 1.5},
    ),
    Row(
        title="share of the memory's bandwidth, 1 stream",
        load="throughput-1",
        metric="bandwidth_share",
        limits={"large": 0.85},
    ),
    KL,
)
