"""`POST /page/samples`: samples of the parsers of a response, for the report of a parse."""

from __future__ import annotations

from typing import Annotated

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from fllm import LIMITED, ChatRequest, Generation, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm.parsing import ParserSample
from fllm.pipeline.samples import SampledParsers, make_samples

MAX_TEXT = 2**20
"""Maximum number of characters of an output: more than models write. Some parsers take 2 µs for each."""


class SamplesRequest(ChatRequest, frozen=True, kw_only=True):
    """The request of a chat, and what the model wrote."""

    text: Annotated[str, Meta(max_length=MAX_TEXT)]
    """What the parsers received: the joined texts of the events ``raw``."""


class Samples(Struct, frozen=True):
    """One sample for each parser of the request, or one of the parser ``raw``."""

    samples: list[ParserSample]


@post("/page/samples", status_code=200, opt=LIMITED, include_in_schema=False)
async def samples(data: JSONBody[SamplesRequest], server: NamedDependency[Serving]) -> Samples:
    """Return what each parser received and emitted. The model is not asked again."""
    generation = await server.read_chat(data)
    return Samples(await server.prepare(_samples(generation, data.text), slow=True))


def _samples(generation: Generation, text: str) -> Pieces[list[ParserSample]]:
    found: list[ParserSample] = []
    for sample in make_samples(SampledParsers.of(generation.request), text, generation.model):
        found.append(sample)
        yield 0
    return found
