"""Every complete output of the embedded model satisfies its schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import jsonschema
from support.schema_corpus import SUPPORTED

from fllm import Backend, BackendConfig, BackendContext, GenerateRequest, ModelCard, SamplingParams
from fllm.constraints import Constraint, JsonSchema
from fllm.model.source import locate
from fllm.plugins.loader import load_plugins
from fllm.tokenizer import Tokenizer
from fllm_backends.torch.backend import torch_backend

TOKENS = 48
QUESTION = "<|im_start|>user\nDescribe a small town by the sea.<|im_end|>\n<|im_start|>assistant\n"
SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 1.5, "top_p": 0.9, "top_k": 50, "presence_penalty": 1.0, "logprobs": 1, "min_tokens": 6},
]


CASES = list(zip(cycle(SAMPLINGS), SUPPORTED, strict=False))


@asynccontextmanager
async def model() -> AsyncIterator[tuple[Backend, ModelCard]]:
    config = BackendConfig(model=locate().location, grammar="llguidance", max_model_len=512)
    backend = torch_backend(config, BackendContext(load_grammar=load_plugins().grammars.load))
    card = await backend.start()
    try:
        yield backend, card
    finally:
        await backend.stop()


async def generate(
    backend: Backend, ids: list[int], name: str, constraint: Constraint | None, **sampling: Any
) -> tuple[list[int], str | None]:
    params = SamplingParams(**{"max_tokens": TOKENS, **sampling})
    found, finish = [], None
    async for output in backend.generate(GenerateRequest(name, ids, params, constraint=constraint)):
        found += output.token_ids
        finish = output.finish_reason
    return found, finish


def test_complete_outputs_satisfy_the_schema_and_other_sequences_are_unchanged() -> None:
    async def main() -> tuple[list[tuple[list[int], str | None]], Tokenizer, bool]:
        async with model() as (backend, card):
            tokenizer = Tokenizer.load(Path(card.tokenizer))
            ids = tokenizer.encode(QUESTION, add_special_tokens=False)
            alone = await generate(backend, ids, "alone", None, temperature=0.0)
            asked = [
                generate(backend, ids, f"r{n}", JsonSchema(json.dumps(schema)), **sampling)
                for n, (sampling, schema) in enumerate(CASES)
            ]
            among, *found = await asyncio.gather(
                generate(backend, ids, "free", None, temperature=0.0), *asked
            )
            return found, tokenizer, among == alone

    found, tokenizer, unchanged = asyncio.run(main())
    assert unchanged
    ended = 0
    for (_, schema), (tokens, finish) in zip(CASES, found, strict=True):
        if finish == "stop":
            ended += 1
            check = jsonschema.Draft202012Validator(
                schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
            )
            check.validate(json.loads(tokenizer.decode(tokens, skip_special_tokens=True)))
    assert ended >= 0.6 * len(found)


JOKE = {
    "type": "object",
    "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}},
    "required": ["setup", "punchline"],
    "additionalProperties": False,
}


def test_an_object_is_written_in_the_tokens_that_the_model_has_learned() -> None:
    async def main() -> list[str]:
        async with model() as (backend, card):
            tokenizer = Tokenizer.load(Path(card.tokenizer))
            question = QUESTION.replace("Describe a small town by the sea.", "Tell me a joke about cats.")
            ids = tokenizer.encode(question, add_special_tokens=False)
            tokens, _ = await generate(backend, ids, "r", JsonSchema(json.dumps(JOKE)), temperature=0.0)
            return [tokenizer.token_text(each) for each in tokens]

    tokens = asyncio.run(main())
    assert "".join(tokens[:12]) == '{\n  "setup": "A cat is a cat,'
    assert tokens[:6] == ["{", "\n ", ' "', "setup", '":', ' "']
