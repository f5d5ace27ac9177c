"""Run our backend on the vendor's own classes, in the environment of test_vendor_wheel.py.

Only the engine at the bottom, which needs the device, is replaced: by one that counts and returns the native
module's own types.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import furiosa.llm_native.llm as native
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    EngineOutput,
    GenerateRequest,
    RequestError,
    SamplingParams,
    UserError,
)
from fllm.model.devices import parse_devices
from fllm.testing import BackendContract
from fllm_backends.rngd.backend import rngd_backend

VOCABULARY = 64
END = VOCABULARY - 1


class CountingEngine:
    """Generates token n + 1 after token n, with the vendor's arguments and outputs."""

    made: ClassVar[list[CountingEngine]] = []
    max_model_len = 64

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.aborted: set[str] = set()
        self.alive = True
        self.made.append(self)

    async def stream_generate(self, inputs: Any, params: Any, request_id: str) -> AsyncGenerator[Any]:
        token = inputs.input_ids[-1]
        ends = {*(params.stop_token_ids or ()), *(() if params.ignore_eos else (END,))}
        for count in range(1, params.max_tokens + 1):
            await asyncio.sleep(0)
            if request_id in self.aborted or not self.alive:
                return
            token = (token + 1) % VOCABULARY
            if token in ends and count <= params.min_tokens:
                token = 1
            reason = "stop" if token in ends else "length" if count == params.max_tokens else None
            yield native.NativeRequestOutput(
                [native.NativeCompletionOutput(0, [token], None, None, reason)], 0, None
            )
            if reason:
                return

    def abort_request(self, request_id: str) -> None:
        self.aborted.add(request_id)

    def is_alive(self) -> bool:
        return self.alive

    def shutdown(self) -> None:
        self.alive = False


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: VOCABULARY - 1]
    inner = tokenizers.Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|end|>"])
    inner.save(str(found / "tokenizer.json"))
    (found / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    config = '{"model_type": "llama", "max_position_embeddings": 64, "vocab_size": 64, "eos_token_id": 63}'
    (found / "config.json").write_text(config)
    (found / "model.fxb").write_bytes(b"")
    return found


@pytest.fixture(autouse=True, scope="session")
def _counting() -> None:
    native.NativeLLMEngine = CountingEngine  # type: ignore[misc, assignment]


def build(directory: Path, **changes: Any) -> Backend:
    options = {"fxb": str(directory / "model.fxb"), "pipeline_parallel_size": "1"}
    config = BackendConfig(
        model=str(directory), devices=parse_devices("npu:0:0-3"), options=options, max_num_seqs=7, **changes
    )
    return rngd_backend(config, BackendContext())


def generate(directory: Path, *tokens: int, **sampling: Any) -> list[EngineOutput]:
    async def scenario() -> list[EngineOutput]:
        backend = build(directory)
        await backend.start()
        try:
            return [
                s
                async for s in backend.generate(
                    GenerateRequest("r", [*tokens], SamplingParams(max_tokens=4, **sampling))
                )
            ]
        finally:
            await backend.stop()

    return asyncio.run(scenario())


class TestContract(BackendContract):
    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8))
    supports_sampling = False
    supports_logprobs = None
    model: ClassVar[Path]
    # These request seeds, which the engine does not support: they are rejected.
    test_the_seed_determines_the_output = None
    test_concurrent_requests_do_not_affect_each_other = None
    # The engine's log-probabilities come from the device.
    test_logprobs_are_complete_or_rejected = None

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _model(cls, directory: Path) -> None:
        cls.model = directory

    @classmethod
    def backend(cls) -> Backend:
        return build(cls.model)


def test_the_engine_is_made_as_it_was_asked_for(directory: Path) -> None:
    assert [step.token_ids for step in generate(directory, 40)] == [[41], [42], [43], [44]]
    arguments = CountingEngine.made[-1].arguments
    assert arguments[:5] == (str(directory), None, "npu:0:0-3", None, 1)
    assert '"max_concurrency":7' in arguments[6]


def test_what_the_vendor_refuses_is_refused(directory: Path) -> None:
    with pytest.raises(RequestError, match="repetition_penalty"):
        generate(directory, 40, repetition_penalty=2.5)


def test_a_context_that_the_vendor_refuses_is_a_user_error(directory: Path) -> None:
    async def start() -> None:
        await build(directory, max_model_len=-1).start()

    with pytest.raises(UserError, match="max_model_len must be greater than 0"):
        asyncio.run(start())
