"""Beam search over the torch backend finds what ``generate(num_beams=…)`` of transformers finds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import astuple
from support.tiny_models import save_model

from fllm.config import BackendConfig, Device
from fllm.interfaces import BackendContext
from fllm.pipeline.beam_search import BeamSearchParams, beam_search
from fllm.values import GenerateRequest, SamplingParams
from fllm_backends.torch.backend import torch_backend

PROMPT = [11, 42, 7, 90, 23]
EOS = [5, 6]
"""Tokens that the model is likely to say: some outputs end early, and each setting matters to some."""
MAX_TOKENS = 12
BEAMS = [
    BeamSearchParams(width=width, length_penalty=length_penalty, early_stopping=early_stopping)
    for width, length_penalty in ((2, 1.0), (4, 1.0), (4, 0.0), (4, -1.0), (4, 2.0))
    for early_stopping in (True, False, "never")
]

Outputs = list[list[int]]
"""Token ids of each output, best first."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of a model, and the model as transformers holds it."""
    directory: Path = tmp_path_factory.mktemp("tiny")
    return directory, save_model("Llama", directory, initializer_range=0.15)


@pytest.fixture(scope="module")
def found(model: tuple[Path, Any]) -> list[Outputs]:
    """Our outputs of each search."""
    return asyncio.run(search(model[0]))


async def search(directory: Path) -> list[Outputs]:
    """Run all searches concurrently in one engine."""
    config = BackendConfig(model=str(directory), devices=(Device("cpu"),))
    backend = torch_backend(config, BackendContext())
    await backend.start()
    try:
        prompts = [
            GenerateRequest(f"search {i}", PROMPT, SamplingParams(max_tokens=MAX_TOKENS))
            for i in range(len(BEAMS))
        ]
        pairs = zip(prompts, BEAMS, strict=True)
        results = await asyncio.gather(*(beam_search(backend, prompt, beam, EOS) for prompt, beam in pairs))
    finally:
        await backend.stop()
    return [[hypothesis.token_ids for hypothesis in hypotheses] for hypotheses in results]


def expected(model: Any, beam: BeamSearchParams) -> Outputs:
    """The outputs of transformers, without their padding."""
    rows = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        num_beams=beam.width,
        num_return_sequences=beam.width,
        length_penalty=beam.length_penalty,
        early_stopping=beam.early_stopping,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=EOS,
        pad_token_id=0,
        do_sample=False,
    )
    return [_until_the_end(row[len(PROMPT) :].tolist()) for row in rows]


def _until_the_end(tokens: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(tokens, start=1) if token in EOS]
    return tokens[: ends[0]] if ends else tokens


@pytest.mark.parametrize("index", range(len(BEAMS)), ids=[str(astuple(beam)) for beam in BEAMS])
def test_the_answers_are_those_of_transformers(
    index: int, found: list[Outputs], model: tuple[Path, Any]
) -> None:
    assert found[index] == expected(model[1], BEAMS[index])


def test_each_setting_matters_to_these_searches(found: list[Outputs]) -> None:
    by_beam = dict(zip((astuple(beam) for beam in BEAMS), found, strict=True))
    assert by_beam[4, 1.0, True] != by_beam[4, 1.0, False]
    assert by_beam[2, 1.0, False] != by_beam[2, 1.0, "never"]
    assert by_beam[4, 0.0, True] != by_beam[4, 2.0, True]
    assert by_beam[2, 1.0, True] != by_beam[4, 1.0, True][:2]
