"""The backend that asks another server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    BackendError,
    BackendUnavailable,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    RequestError,
)
from fllm.errors import ContextTooLong
from fllm.plugins.backend_options import backend_options
from fllm_backends.checkpoints.model_description import ModelDescription, read_model_description
from fllm_backends.openai.capability_probe import context_length, manner_of, served_model
from fllm_backends.openai.client import Client
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.openai.request_builder import Manner
from fllm_backends.openai.response_reader import Answer
from fllm_backends.openai.retokenizer import Alphabet, Speller
from fllm_backends.unsupported_options import reject_unsupported_options

FRESH_SECONDS = 2.0
"""So long the server's last word on its health holds."""
_ELSEWHERE = (
    "devices",
    "dtype",
    "quantization",
    "load_format",
    "seed",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "speculative_config",
)
"""What the engine behind decides."""


def openai_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """A backend in front of the server at the option ``url``; raises `ConfigError`."""
    reject_unsupported_options(config, _ELSEWHERE, "the server behind decides that; give it to that one")
    return OpenAIBackend(config, backend_options(config.options, OpenAIOptions), context)


class OpenAIBackend:
    """Hands prompts on to a server, and its answers back as steps."""

    _manner: Manner
    _model: ModelDescription
    _max_model_len: int

    def __init__(self, config: BackendConfig, options: OpenAIOptions, context: BackendContext) -> None:
        self._config = config
        self._options = options
        self._progress = context.progress
        self._client = Client(options)
        self._health = Health(self._client)
        self._running = 0

    async def start(self) -> ModelCard:
        """Ask the server what it is, and read the model's tokenizer; raises `UserError`."""
        config, options = self._config, self._options
        try:
            served = await served_model(self._client, options, config.model)
            self._model = await asyncio.to_thread(
                read_model_description, config.model, config.revision, self._progress
            )
            self._manner = await manner_of(self._client, options, served, self._model.tokenizer)
            self._max_model_len = context_length(served, self._model.max_positions, config.max_model_len)
        except BaseException:
            await self.stop()
            raise
        self._alphabet = Alphabet(self._model.tokenizer)
        manner = self._manner
        return self._model.card(
            max_model_len=self._max_model_len,
            defaults=manner.dialect.defaults(self._model.defaults),
            artifact_id=served.artifact_id,
            grammar="vllm" if options.constraints == "vllm" else None,
            runtime={"server": manner.dialect.kind, "model": served.id, "receive": manner.receive},
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """The server's answer; closing the generator hangs up, which aborts it there."""
        request = self._fitting(request)
        sampling = request.sampling
        body = self._manner.body(request, self._model.tokenizer)
        if not sampling.max_tokens and sampling.prompt_logprobs is None:
            yield EngineOutput(finish_reason="length")
            return
        answer = Answer(request, self._model.eos_token_ids, self._speller(request))
        self._running += 1
        try:
            events = self._client.events("/completions", body, request.request_id)
            async with aclosing(events):
                async for together in events:
                    if step := answer.feed(together):
                        yield step
            yield answer.finish()
        finally:
            self._running -= 1

    async def status(self) -> EngineStats:
        """The sequences that wait for the server; raises `BackendUnavailable` where it does not answer."""
        await self._health.check()
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """Hang up."""
        await self._client.close()

    def _fitting(self, prompt: GenerateRequest) -> GenerateRequest:
        """The prompt with a maximum that the context has room for, since servers refuse a larger one."""
        room = self._max_model_len - len(prompt.token_ids)
        if room < 1:
            raise ContextTooLong(
                f"the context has {self._max_model_len} tokens; the prompt has {len(prompt.token_ids)}",
                param="prompt",
            )
        sampling = replace(prompt.sampling, max_tokens=min(prompt.sampling.max_tokens, room))
        return replace(prompt, sampling=sampling)

    def _speller(self, prompt: GenerateRequest) -> Speller | None:
        if self._manner.receive != "text":
            return None
        return Speller(self._model.tokenizer, self._alphabet, prompt.token_ids)


class Health:
    """Whether the server answers; it is asked no more often than it matters."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked_at: float | None = None
        self._complaint: str | None = None
        self._one_at_a_time = asyncio.Lock()

    async def check(self) -> None:
        """Raise `BackendUnavailable` if it does not answer."""
        self._client.check()
        async with self._one_at_a_time:
            if self._asked_at is None or time.monotonic() - self._asked_at > FRESH_SECONDS:
                self._complaint = await self._ask()
                self._asked_at = time.monotonic()
        if self._complaint is not None:
            raise BackendUnavailable(self._complaint)

    async def _ask(self) -> str | None:
        try:
            await self._client.page(f"{self._client.url}/models")
        except (BackendError, RequestError) as error:
            return error.message
        return None
