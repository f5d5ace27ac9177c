"""Measure drafters: tokens/s with each over those without drafts, in interleaved rounds of one process.

::

    python benchmarks/speculation.py --streams 1 4 16 --drafters ngram suffix
    python benchmarks/speculation.py --threads 1 --cpu        # on a busy machine
    python benchmarks/speculation.py --model TARGET --draft-model DRAFT --drafters draft_model

The loads: ``copying`` repeats and corrects a text of its prompt, ``ordinary`` are questions that no round
asks twice, ``again`` are the same questions in each round, as an agent asks them. Outputs must equal those
without drafts. A drafter that gains nothing should lose at most 1 %, and a few steps in each size class of
batches.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from fllm import Backend, BackendConfig, BackendContext, GenerateRequest, SamplingParams
from fllm.config import Speculation
from fllm.model import locate
from fllm.plugins.loader import load_plugins
from fllm.tokenizer import Tokenizer
from fllm_backends.torch.backend import torch_backend

TEXT = (
    "The lighthouse was built in 1874 by masons from the mainland. Its lamp burned whale oil at first, "
    "later paraffin, and from 1931 electricity from a cable under the sea. The last keeper, Anna Lindqvist, "
    "left the tower in 1968, when the lamp was made automatic. Today it is a museum, open in summer."
)
COPYING = ("Repeat this text word for word:", "Correct the spelling of this text:", "Quote this text:")
TOPICS = ("the sea", "bread", "a journey by train", "mathematics", "an old friend", "rain in a city", "bees")
LOADS = ("copying", "ordinary", "again")


class Engine(Struct):
    """An engine with one drafter, or without."""

    name: str
    backend: Backend
    tokenizer: Tokenizer


class Round(Struct):
    """What one round of requests took."""

    tokens: int
    seconds: float
    accepted: int
    drafted: int
    texts: list[list[int]]


async def main() -> None:
    """Measure and print a table."""
    options = parse_arguments()
    engines = [await start(name, options) for name in ("off", *options.drafters)]
    numbers = itertools.count()
    print("| load | streams | drafter | tokens/s | of off (range) | accepted | off at the end |")
    print("|---|---|---|---|---|---|---|")
    for load, streams in itertools.product(options.loads, options.streams):
        rounds: dict[str, list[Round]] = {each.name: [] for each in engines}
        for count in range(options.rounds + 1):
            prompts = [*prompts_of(load, streams, numbers)]
            for each in engines if count % 2 else reversed(engines):
                rounds[each.name].append(await measure(each, prompts, options))
        for name, found in rounds.items():
            same = all(a.texts == b.texts for a, b in zip(found, rounds["off"], strict=True))
            assert same, f"{name} changed an output"
        for each in engines:
            status = await each.backend.status()
            print(row(load, streams, each.name, rounds, off=bool(status.drafters_off)))
    for each in engines:
        await each.backend.stop()


async def start(name: str, options: argparse.Namespace) -> Engine:
    """Start an engine."""
    settings = {"model": options.draft_model} if name == "draft_model" else {}
    speculation = Speculation(method=name, num_speculative_tokens=options.tokens_per_draft, settings=settings)
    config = BackendConfig(
        model=locate(options.model).location,
        options={"threads": str(options.threads)} if options.threads else {},
        speculative_config=None if name == "off" else speculation,
        max_model_len=4096,
    )
    backend = torch_backend(config, BackendContext(load_drafter=load_plugins().drafters.load))
    card = await backend.start()
    return Engine(name, backend, Tokenizer.load(Path(card.tokenizer)))


def prompts_of(load: str, streams: int, numbers: Iterable[int]) -> Iterable[str]:
    """Yield a prompt for each stream."""
    for stream, number in zip(range(streams), numbers, strict=False):
        topic = TOPICS[stream % len(TOPICS)]
        match load:
            case "copying":
                text = f"{COPYING[stream % len(COPYING)]}\n\n{TEXT}"
            case "ordinary":
                text = f"Write paragraph {number} of an essay about {topic}."
            case _:
                text = f"Write a short paragraph about {topic}."
        yield f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


async def measure(engine: Engine, prompts: Sequence[str], options: argparse.Namespace) -> Round:
    """Run a round of requests at once."""
    before = await engine.backend.status()
    clock = time.process_time if options.cpu else time.perf_counter
    started_at = clock()
    texts = await asyncio.gather(
        *(generate(engine, f"{number}", prompt, options) for number, prompt in enumerate(prompts))
    )
    seconds = clock() - started_at
    after = await engine.backend.status()
    return Round(
        sum(map(len, texts)),
        seconds,
        after.accepted - before.accepted,
        after.drafted - before.drafted,
        [*texts],
    )


async def generate(engine: Engine, name: str, prompt: str, options: argparse.Namespace) -> list[int]:
    """Return the output of one request."""
    sampling = SamplingParams(
        max_tokens=options.tokens, temperature=options.temperature, ignore_eos=True, seed=1
    )
    ids = engine.tokenizer.encode(prompt, add_special_tokens=False)
    tokens: list[int] = []
    async for output in engine.backend.generate(GenerateRequest(name, ids, sampling)):
        tokens += output.token_ids
    return tokens


def row(load: str, streams: int, name: str, rounds: dict[str, list[Round]], *, off: bool) -> str:
    """Format a line; the first round warms up."""
    speeds, plain = ([each.tokens / each.seconds for each in rounds[key][1:]] for key in (name, "off"))
    ratios = [speed / base for speed, base in zip(speeds, plain, strict=True)]
    accepted, drafted = (sum(getattr(each, f) for each in rounds[name][1:]) for f in ("accepted", "drafted"))
    share = f"{accepted} of {drafted}" if drafted else ""
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return (
        f"| {load} | {streams} | {name} | {statistics.median(speeds):.0f} | {spread} | {share} | "
        f"{'yes' if off else ''} |"
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None, help="the embedded model")
    parser.add_argument("--draft-model")
    parser.add_argument("--drafters", nargs="+", default=["ngram", "suffix"])
    parser.add_argument("--loads", nargs="+", default=LOADS, choices=LOADS)
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--tokens-per-draft", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="measure CPU time instead of time")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
