"""A backend without a model: it returns the prompt, and passes `BackendContract`.

The module is also a plugin: ``furiosa-llm serve MODEL --plugin FILE --backend echo``, where FILE is
`ECHO_PLUGIN` and MODEL is a directory that `echo_model` wrote. This server returns the last message, so that
a test defines the output of "the model".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ECHO_PLUGIN = __file__
"""Path of the plugin, for ``--plugin``."""

_TOKENIZER_CONFIG = '{"chat_template": "{% if tools %}{% endif %}{{ messages[-1].content }}"}'
"""The template refers to ``tools``; otherwise the server would list the tools in an extra message."""


def echo_model(directory: Path) -> Path:
    """Write a tokenizer of single bytes and a template that renders the last message; return MODEL."""
    directory.mkdir(parents=True, exist_ok=True)
    byte_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(_TOKENIZER_CONFIG)
    (directory / "config.json").write_text("{}")  # identifies the directory as a model
    return directory


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of single bytes, without special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = {token: i for i, token in enumerate(sorted(byte_level.alphabet()))}
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class EchoBackend:
    """Returns the prompt, one token per iteration of the event loop, and repeats it if EOS is ignored."""

    def __init__(self, config: BackendConfig, context: BackendContext) -> None:  # noqa: ARG002  (a `BackendFactory`)
        self._card = ModelCard(
            tokenizer=config.model, max_model_len=config.max_model_len or 4096, supports_cache_salt=True
        )
        self._started = False
        self._running = 0

    async def start(self) -> ModelCard:
        """Return the model card. Nothing is loaded here; the directory must have a tokenizer."""
        self._started = True
        return self._card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the tokens of the prompt, up to the limits of the request."""
        self._require_started()
        check_request(request, self._card)
        if request.sampling.logprobs is not None or request.sampling.prompt_logprobs is not None:
            raise RequestError("the echo backend does not support log-probabilities", param="logprobs")
        self._running += 1
        try:
            async for step in self._echo(request):
                yield step
        finally:
            self._running -= 1

    async def status(self) -> EngineStats:
        """Return the number of running requests."""
        self._require_started()
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """Stop the backend. Running requests end at their next token."""
        self._started = False

    async def _echo(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        sampling, ids = request.sampling, request.token_ids
        room = min(sampling.max_tokens, self._card.max_model_len - len(ids))
        length = room if sampling.ignore_eos else max(len(ids), sampling.min_tokens)
        for done, token in enumerate(islice(cycle(ids), min(room, length))):
            await asyncio.sleep(0)  # lets other requests run
            self._require_started()
            if token in sampling.stop_token_ids and done >= sampling.min_tokens:
                yield EngineOutput(token_ids=[token], finish_reason="stop", stop_token=token)
                return
            yield EngineOutput(token_ids=[token])
        yield EngineOutput(finish_reason="stop" if length < room else "length")

    def _require_started(self) -> None:
        if not self._started:
            raise BackendUnavailable("the echo backend is stopped")


@hookimpl
def fllm_backends() -> Iterable[BackendEntry]:
    """Provide the backend ``echo``."""
    yield BackendEntry("echo", f"{__name__}:EchoBackend", "Returns the prompt.", isolated=False)
