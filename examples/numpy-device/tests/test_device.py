"""The device with the embedded model: what `fllm.batching` relies on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fllm_numpy import plugin
from fllm_numpy.backend import numpy_backend
from fllm_numpy.gguf_file import GgufFile
from fllm_numpy.runner import NumpyRunner

from fllm import BackendConfig, BackendContext, ConfigError, Device, ModelCard, ModelError, Prompt, Sampling
from fllm.batching import Row, Sampled
from fllm.models import locate
from fllm.testing import plugins_with
from fllm.tokens import Tokenizer

BLOCK = 16
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[NumpyRunner, ModelCard]]:
    runner = NumpyRunner(Path(locate().location), 2048)
    card = runner.load(lambda progress: None)
    assert runner.allocate(BLOCK) == 2048 // BLOCK
    yield runner, card
    runner.close()
    assert not Path(card.tokenizer).exists()


@pytest.fixture(scope="module")
def runner(loaded: tuple[NumpyRunner, ModelCard]) -> NumpyRunner:
    return loaded[0]


@pytest.fixture(scope="module")
def tokenizer(loaded: tuple[NumpyRunner, ModelCard]) -> Tokenizer:
    return Tokenizer.load(Path(loaded[1].tokenizer))


def a_row(tokens: Sequence[int], blocks: Sequence[int], start: int = 0, **parts: Any) -> Row:
    """The rest of the tokens, greedily continued."""
    known = {
        "prompt_length": len(tokens),
        "count": len(tokens) - start,
        "sampling": Sampling(max_tokens=9, temperature=0, logprobs=3),
        "seed": 0,
        "sample": True,
    }
    return Row(token_ids=tokens, block_table=blocks, start=start, **(known | parts))


def same(one: Sampled, other: Sampled) -> bool:
    assert one.logprob
    assert other.logprob
    close = one.logprob.logprob == pytest.approx(other.logprob.logprob, abs=1e-3)
    return one.token_id == other.token_id and close


def test_the_model_answers(runner: NumpyRunner, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(QUESTION, special=False)
    asked, start = len(tokens), 0
    while len(tokens) < asked + 7:
        [result] = runner.execute([a_row(tokens, [5, 3, 9], start, prompt_length=asked)])
        start = len(tokens)
        assert result.token_id is not None
        tokens.append(result.token_id)
    assert tokenizer.decode(tokens[asked:], skip_special=True) == "The capital of France is Paris."


def test_the_tokenizer_spells_any_text_and_divides_digits(tokenizer: Tokenizer) -> None:
    text = "In 2024, 서울 had 9,386,034 people 😀\n"
    ids = tokenizer.encode(text, special=True)
    assert tokenizer.decode(ids, skip_special=False) == text
    assert [tokenizer.token_text(token) for token in tokenizer.encode("2024", special=False)] == [*"2024"]
    assert tokenizer.eos_token == "<|im_end|>"


def test_chunks_give_what_the_whole_prompt_gives(runner: NumpyRunner, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(QUESTION * 3, special=False)
    [whole] = runner.execute([a_row(tokens, range(10, 14))])
    for start, end in ((0, 5), (5, 17), (17, len(tokens) - 1)):
        [nothing] = runner.execute([a_row(tokens, range(4), start, count=end - start, sample=False)])
        assert nothing == Sampled()
    [last] = runner.execute([a_row(tokens, range(4), len(tokens) - 1)])
    assert same(whole, last)


def test_rows_of_one_batch_do_not_meet(runner: NumpyRunner, tokenizer: Tokenizer) -> None:
    texts = [tokenizer.encode(text, special=False) for text in (QUESTION, "Once upon a time", "1, 2, 3, 4,")]
    tables = [[7, 2], [30, 31], [4, 1]]
    rows = [a_row(tokens, blocks) for tokens, blocks in zip(texts, tables, strict=True)]
    alone = [runner.execute([row])[0] for row in rows]
    together = runner.execute(rows)
    assert all(map(same, together, alone))


def test_a_row_reads_what_an_earlier_one_of_the_batch_writes(
    runner: NumpyRunner, tokenizer: Tokenizer
) -> None:
    tokens = tokenizer.encode(QUESTION * 2, special=False)
    assert len(tokens) == 2 * BLOCK
    [alone] = runner.execute([a_row(tokens, [60, 61])])
    first = a_row(tokens, [70], count=BLOCK, sample=False)
    _, second = runner.execute([first, a_row(tokens, [70, 71], BLOCK)])
    assert same(second, alone)


def test_drafts_are_verified(runner: NumpyRunner, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode(QUESTION, special=False)
    right, wrong = (
        tokenizer.encode("The capital of", special=False),
        tokenizer.encode(" cheese", special=False),
    )
    row = a_row([*prompt, *right, *wrong], [20, 21], prompt_length=len(prompt), drafts=4)
    [result] = runner.execute([row])
    assert result.accepted == 3
    assert result.token_id == tokenizer.encode(" France", special=False)[0]
    assert [each.token_id for each in result.accepted_logprobs] == right


def test_prompt_logprobs_are_those_of_the_prompts_own_tokens(
    runner: NumpyRunner, tokenizer: Tokenizer
) -> None:
    tokens = tokenizer.encode("The capital of France is Paris", special=False)
    asked = Sampling(max_tokens=1, temperature=0, prompt_logprobs=1)
    [result] = runner.execute([a_row(tokens, [40], sampling=asked, prompt_logprobs=True)])
    assert [each.token_id for each in result.prompt_logprobs] == tokens[1:]
    assert result.prompt_logprobs[-1].top[0][0] == tokens[-1]
    assert result.logprob is None


def test_a_prompt_goes_through_the_scheduler() -> None:
    async def answer() -> tuple[ModelCard, list[int]]:
        config = BackendConfig(model=locate().location, devices=(Device("numpy"),), max_model_len=64)
        backend = numpy_backend(config, BackendContext())
        try:
            card = await backend.start()
            ids = Tokenizer.load(Path(card.tokenizer)).encode(QUESTION, special=False)
            prompt = Prompt("1", ids, Sampling(max_tokens=20, temperature=0))
            steps = [step async for step in backend.generate(prompt)]
        finally:
            await backend.stop()
        assert (steps[-1].finish, steps[-1].stop_token) == ("stop", card.eos_token_ids[0])
        return card, [token for step in steps for token in step.token_ids]

    card, tokens = asyncio.run(answer())
    assert len(tokens) == 8
    assert (card.max_model_len, card.runtime["kv_cache_blocks"]) == (64, 1024)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"devices": (Device("numpy", 1),)}, "one numpy device"),
        ({"dtype": "bfloat16"}, "float32"),
        ({"quantization": "int8"}, "float32"),
        ({"load_format": "dummy"}, "GGUF files"),
        ({"options": {"kv_cache_tokens": "many"}}, "kv_cache_tokens"),
        ({"options": {"cache": "1"}}, "no such option"),
    ],
)
def test_what_the_device_can_not_do_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        numpy_backend(BackendConfig(**({"model": locate().location} | asked)), BackendContext())


def test_models_that_are_not_gguf_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="directory model"):
        numpy_backend(BackendConfig(model=str(tmp_path)), BackendContext())
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(8))
    with pytest.raises(ModelError, match="can't be read as GGUF"):
        GgufFile(broken)


def test_the_plugin_is_sound_and_offers_the_device() -> None:
    [backend] = plugins_with(plugin, installed=False).backends
    assert backend.entry.devices == ("numpy",)  # type: ignore[attr-defined]
