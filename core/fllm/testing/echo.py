"""A backend without weights that passes `BackendContract`, for tests and as an example.

It is also a plugin: ``furiosa-llm serve MODEL --plugin FILE --backend echo``, where FILE is `ECHO_PLUGIN` and
MODEL is a directory that `echo_model` wrote. The server responds with the last message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from itertools import cycle, islice
from pathlib import Path

from fllm import (
    BackendConfig,
    BackendContext,
    BackendEntry,
    BackendUnavailable,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    RequestError,
    hookimpl,
)
from fllm.batching.prompt_validation import check_request

ECHO_PLUGIN = __file__
"""For ``--plugin``."""

_TOKENIZER_CONFIG = '{"chat_template": "{% if tools %}{% endif %}{{ messages[-1].content }}"}'
"""Mentions tools, because the server otherwise lists them in an additional message."""


def echo_model(directory: Path) -> Path:
    """Write a byte-level tokenizer and a chat template that renders the last message; return MODEL."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = {token: i for i, token in enumerate(sorted(byte_level.alphabet()))}
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(_TOKENIZER_CONFIG)
    (directory / "config.json").write_text("{}")  # by which MODEL is known to be one
    return directory


class EchoBackend:
    """Generates the prompt, one token per turn of the event loop; with ``ignore_eos`` again and again."""

    def __init__(self, config: BackendConfig, context: BackendContext) -> None:  # noqa: ARG002  (a `BackendFactory`)
        self._card = ModelCard(tokenizer=config.model, max_model_len=config.max_model_len or 4096)
        self._awake = False
        self._running = 0

    async def start(self) -> ModelCard:
        """Return the card; the directory must have a tokenizer."""
        self._awake = True
        return self._card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the tokens of the prompt, up to its limits."""
        self._require()
        check_request(request, self._card)
        if request.sampling.logprobs is not None or request.sampling.prompt_logprobs is not None:
            raise RequestError("an echo has no log-probabilities", param="logprobs")
        self._running += 1
        try:
            async for step in self._steps(request):
                yield step
        finally:
            self._running -= 1

    async def status(self) -> EngineStats:
        """Return the number of running sequences."""
        self._require()
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """End running sequences at their next token."""
        self._awake = False

    async def _steps(self, prompt: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        sampling, ids = prompt.sampling, prompt.token_ids
        room = min(sampling.max_tokens, self._card.max_model_len - len(ids))
        wanted = room if sampling.ignore_eos else max(len(ids), sampling.min_tokens)
        for done, token in enumerate(islice(cycle(ids), min(room, wanted))):
            await asyncio.sleep(0)  # let other sequences run
            self._require()
            if token in sampling.stop_token_ids and done >= sampling.min_tokens:
                yield EngineOutput(token_ids=[token], finish_reason="stop", stop_token=token)
                return
            yield EngineOutput(token_ids=[token])
        yield EngineOutput(finish_reason="stop" if wanted < room else "length")

    def _require(self) -> None:
        if not self._awake:
            raise BackendUnavailable("the echo has stopped")


@hookimpl
def fllm_backends() -> Iterable[BackendEntry]:
    """Yield the echo backend."""
    yield BackendEntry("echo", f"{__name__}:EchoBackend", "Answers with the prompt.", isolated=False)
