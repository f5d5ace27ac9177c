"""An engine continues the output that another engine began, at any place, as that engine would have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from support import fake_grammar
from support.fake_runner import VOCABULARY, FakeRunner
from support.manual_masks import MaskedRunner

from fllm.batching import BatchedBackend, BatchLimits
from fllm.config import BackendConfig, Speculation
from fllm.constraints import ConstString
from fllm.errors import ContextTooLong, RequestError
from fllm.interfaces import BackendContext
from fllm.structured_output.interfaces import Vocabulary
from fllm.testing import plugins_with
from fllm.values import EngineOutput, GenerateRequest, ReasoningLimit, SamplingParams, merge_outputs
from fllm_backends.drafters.ngram import NgramDrafter

PROMPT = (1, 2, 3, 4, 5, 6)


@pytest.fixture(autouse=True)
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tokenizer's vocabulary by one of numbers."""
    monkeypatch.setattr("fllm.batching.backend.Tokenizer.load", lambda _: None)
    monkeypatch.setattr(
        "fllm.batching.backend.read_vocabulary", lambda *_: Vocabulary([b"t"] * VOCABULARY, (10,))
    )


def outputs(
    runner: FakeRunner, requests: Sequence[GenerateRequest], config: BackendConfig | None = None
) -> list[EngineOutput]:
    """Return all outputs of each request as one."""

    async def run() -> list[EngineOutput]:
        context = BackendContext(
            load_grammar=plugins_with(fake_grammar, installed=False).grammars.load,
            load_drafter=lambda name: NgramDrafter,
        )
        limits = BatchLimits(max_num_seqs=16, max_num_batched_tokens=64, block_size=4)
        engine = BatchedBackend(runner, config or BackendConfig(model="m"), context, limits=limits)
        assert (await engine.start()).resumes
        try:
            return [merge_outputs([each async for each in engine.generate(asked)]) for asked in requests]
        finally:
            await engine.stop()

    return asyncio.run(run())


def assert_resumes(
    runner: FakeRunner, asked: GenerateRequest, config: BackendConfig | None = None
) -> EngineOutput:
    """Generate once, and once more from every place. Return the whole output."""
    [whole] = outputs(runner, [asked], config)
    cuts = range(1, len(whole.token_ids))
    parts = [replace(asked, generated=tuple(whole.token_ids[:cut])) for cut in cuts]
    for cut, part in zip(cuts, outputs(runner, parts, config), strict=True):
        assert part.token_ids == whole.token_ids[cut:]
        assert part.logprobs == (None if whole.logprobs is None else whole.logprobs[cut:])
        assert part.finish_reason == whole.finish_reason
        assert part.stop_token == whole.stop_token
        assert part.prompt_logprobs is None, "the first engine has returned them"
        assert not part.cached_tokens
    return whole


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"seed": 7, "logprobs": 1, "prompt_logprobs": 1},
        {"max_tokens": 30, "stop_token_ids": (0, 1, 2), "min_tokens": 6, "seed": 3},
        {"frequency_penalty": 1.0, "repetition_penalty": 1.3},
    ],
    ids=["plain", "logprobs", "stop tokens", "penalties"],
)
def test_an_output_continues_from_every_place(sampling: dict[str, object]) -> None:
    wanted = SamplingParams(**{"max_tokens": 12, "seed": 0, **sampling})  # type: ignore[arg-type]
    whole = assert_resumes(FakeRunner(), GenerateRequest("r", list(PROMPT), wanted))
    assert len(whole.token_ids) >= 6


def test_drafts_and_positions_of_long_contexts_do_not_change_what_follows() -> None:
    runner = FakeRunner()
    runner.card = replace(runner.card, long_context_start=11)
    drafting = BackendConfig(
        model="m", speculative_config=Speculation(method="ngram", num_speculative_tokens=3)
    )
    asked = GenerateRequest("r", [1, 2, 1, 2, 1, 2], SamplingParams(max_tokens=12, seed=0))
    assert assert_resumes(runner, asked, drafting).finish_reason == "length"


@pytest.mark.parametrize("text", ["1234512345", "f3412334"], ids=["sampled", "forced"])
@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_grammar_continues_in_the_state_that_the_text_has_reached(text: str, logprobs: int | None) -> None:
    wanted = SamplingParams(max_tokens=20, seed=0, logprobs=logprobs)
    asked = GenerateRequest("r", list(PROMPT), wanted, constraint=ConstString(text))
    whole = assert_resumes(MaskedRunner(), asked, BackendConfig(model="m", grammar="numbers"))
    assert whole.token_ids == [int(digit) for digit in text.removeprefix("f")]


def test_bad_words_hold_across_the_place_where_the_output_continues() -> None:
    free = outputs(MaskedRunner(), [GenerateRequest("r", list(PROMPT), SamplingParams(max_tokens=9, seed=0))])
    word = tuple(free[0].token_ids[3:5])
    wanted = SamplingParams(max_tokens=9, seed=0, bad_words_token_ids=(word,))
    whole = assert_resumes(MaskedRunner(), GenerateRequest("r", list(PROMPT), wanted))
    assert whole.token_ids[:4] == free[0].token_ids[:4]
    assert whole.token_ids[4] != word[1]


class Letters:
    """A tokenizer whose tokens are the letters a to k."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) - ord("a") for letter in text]

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([ord("a") + token_id])


def test_a_reasoning_budget_counts_what_the_first_engine_has_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fllm.batching.backend.Tokenizer.load", lambda _: Letters())
    limit = ReasoningLimit(max_tokens=4, opening=(), closing=("kij",), end="kij", inside=True)
    wanted = SamplingParams(max_tokens=12, seed=1, reasoning_limit=limit)
    whole = assert_resumes(MaskedRunner(), GenerateRequest("r", list(PROMPT), wanted))
    assert whole.token_ids[4:7] == [10, 8, 9]


def test_what_was_generated_must_fit_and_exist() -> None:
    asked = GenerateRequest("r", list(PROMPT), SamplingParams(max_tokens=9), generated=(VOCABULARY,))
    with pytest.raises(RequestError, match="token id"):
        outputs(FakeRunner(), [asked])
    with pytest.raises(ContextTooLong):
        outputs(FakeRunner(max_model_len=8), [replace(asked, generated=(1, 2))])
