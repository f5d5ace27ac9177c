"""Allowed tokens, bad words and a reasoning budget restrict what a sequence samples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from support import fake_grammar
from support.fake_runner import VOCABULARY, FakeRunner
from support.manual_masks import MaskedRunner

from fllm.batching import BatchedBackend, BatchLimits
from fllm.batching.token_filter import TokenFilter
from fllm.config import BackendConfig, Speculation
from fllm.constraints import ConstString
from fllm.errors import RequestError
from fllm.interfaces import BackendContext
from fllm.structured_output.interfaces import Vocabulary
from fllm.testing import plugins_with
from fllm.values import EngineOutput, GenerateRequest, SamplingParams
from fllm_backends.drafters.ngram import NgramDrafter


@asynccontextmanager
async def running(runner: FakeRunner, **config: object) -> AsyncGenerator[BatchedBackend]:
    engine = BatchedBackend(
        runner,
        BackendConfig(model="m", **config),  # type: ignore[arg-type]
        BackendContext(
            load_grammar=plugins_with(fake_grammar, installed=False).grammars.load,
            load_drafter=lambda name: NgramDrafter,
        ),
        limits=BatchLimits(max_num_seqs=4, max_num_batched_tokens=64, block_size=4),
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def generate(runner: FakeRunner, constraint: str | None = None, **sampling: object) -> EngineOutput:
    """Return all outputs of one request as one."""

    async def main() -> EngineOutput:
        config = {} if constraint is None else {"grammar": "numbers"}
        wanted = SamplingParams(**{"max_tokens": 40, "seed": 0, **sampling})  # type: ignore[arg-type]
        grammar = None if constraint is None else ConstString(constraint)
        request = GenerateRequest("r", [1, 2, 3], wanted, constraint=grammar)
        tokens = list[int]()
        async with running(runner, **config) as engine:
            async for output in engine.generate(request):
                tokens += output.token_ids
                last = output
        return EngineOutput(token_ids=tokens, finish_reason=last.finish_reason, stop_token=last.stop_token)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tokenizer's vocabulary by one of numbers."""
    monkeypatch.setattr("fllm.batching.backend.Tokenizer.load", lambda _: None)
    monkeypatch.setattr(
        "fllm.batching.backend.read_vocabulary", lambda *_: Vocabulary([b"t"] * VOCABULARY, (10,))
    )


def test_only_allowed_tokens_are_sampled() -> None:
    found = generate(MaskedRunner(eos=(10,)), allowed_token_ids=(3, 5))
    assert set(found.token_ids) == {3, 5}
    assert (len(found.token_ids), found.finish_reason) == (40, "length")


def test_a_stop_token_ends_the_output_if_it_is_allowed() -> None:
    found = generate(MaskedRunner(eos=(10,)), allowed_token_ids=(3, 10), min_tokens=5)
    assert set(found.token_ids[:5]) == {3}
    assert found.stop_token == 10


def test_a_bad_word_of_one_token_is_never_sampled() -> None:
    unrestricted = generate(MaskedRunner()).token_ids
    word = unrestricted[4]
    assert word not in generate(MaskedRunner(), bad_words_token_ids=((word,),)).token_ids


def test_a_bad_word_of_several_tokens_is_never_completed_but_may_begin() -> None:
    unrestricted = generate(MaskedRunner()).token_ids
    word = tuple(unrestricted[4:7])
    found = generate(MaskedRunner(), bad_words_token_ids=(word, (9,) * 50)).token_ids
    assert found[:6] == unrestricted[:6]
    assert found[6] != word[-1]
    assert all(tuple(found[i : i + 3]) != word for i in range(len(found)))


def test_tokens_of_the_prompt_do_not_begin_a_bad_word() -> None:
    first = generate(MaskedRunner()).token_ids[0]
    assert generate(MaskedRunner(), bad_words_token_ids=((3, first),)).token_ids[0] == first


def test_a_constraint_and_allowed_tokens_hold_together() -> None:
    found = generate(MaskedRunner(eos=(10,)), "1234", bad_words_token_ids=((5,), (2, 9)))
    assert (found.token_ids, found.finish_reason) == ([1, 2, 3, 4], "stop")


def test_a_constraint_may_end_although_its_stop_token_is_not_allowed() -> None:
    assert generate(MaskedRunner(eos=(10,)), "", allowed_token_ids=(1,)).stop_token == 10


@pytest.mark.parametrize(
    ("constraint", "sampling"),
    [
        ("1234", {"allowed_token_ids": (1, 2)}),
        ("f1234", {"allowed_token_ids": (1, 2)}),
        (None, {"allowed_token_ids": (3,), "bad_words_token_ids": ((3, 3),)}),
        (None, {"allowed_token_ids": (10,), "min_tokens": 2}),
        (None, {"allowed_token_ids": (3,), "bad_words_token_ids": ((3,),)}),
    ],
)
def test_a_request_that_excludes_all_tokens_fails_alone(
    constraint: str | None, sampling: dict[str, object]
) -> None:
    with pytest.raises(RequestError, match="no token may come next"):
        generate(MaskedRunner(eos=(10,)), constraint, **sampling)


def test_a_preempted_sequence_samples_the_same_tokens() -> None:
    async def main(blocks: int) -> list[list[int]]:
        async with running(MaskedRunner(blocks=blocks)) as engine:

            async def tokens(name: str) -> list[int]:
                wanted = SamplingParams(max_tokens=30, seed=len(name), bad_words_token_ids=((4, 1), (7,)))
                request = GenerateRequest(name, [1, 2, 3], wanted)
                return [token async for output in engine.generate(request) for token in output.token_ids]

            return await asyncio.gather(*map(tokens, ("a", "bb", "ccc")))

    assert asyncio.run(main(64)) == asyncio.run(main(12))


def test_drafts_are_not_proposed_for_a_sequence_that_is_restricted() -> None:
    runner = MaskedRunner()

    async def main() -> None:
        speculation = Speculation(method="ngram", num_speculative_tokens=3)
        async with running(runner, speculative_config=speculation) as engine:
            wanted = SamplingParams(max_tokens=30, seed=0, allowed_token_ids=(1, 2))
            async for _ in engine.generate(GenerateRequest("r", [1, 2, 1, 2], wanted)):
                pass

    asyncio.run(main())
    assert all(not row.drafts for batch in runner.batches for row in batch)


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        ({"allowed_token_ids": (1,)}, "allowed_token_ids"),
        ({"bad_words_token_ids": ((1,),)}, "bad_words"),
    ],
)
def test_a_runner_without_masks_is_a_clear_error(sampling: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError, match=f"`{param}` is not supported") as caught:
        generate(FakeRunner(), **sampling)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize("sampling", [{"allowed_token_ids": (11,)}, {"bad_words_token_ids": ((1, 11),)}])
def test_a_token_beyond_the_vocabulary_is_a_clear_error(sampling: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="token id 11"):
        generate(MaskedRunner(), **sampling)


def test_the_mask_has_the_size_of_the_vocabulary() -> None:
    restricted = TokenFilter(SamplingParams(max_tokens=1, allowed_token_ids=(0, 70)), 71, ())
    assert restricted.mask([], None, may_stop=True).tolist() == [1, 0, 1 << 6]
