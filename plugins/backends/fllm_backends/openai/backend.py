"""The ``openai`` backend: forward requests to another OpenAI-compatible server."""

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
from fllm.model.source import recommended_sampling
from fllm.plugins.options import backend_options
from fllm_backends.checkpoints.model_description import ModelDescription, read_model_description
from fllm_backends.openai.capability_probe import context_length, probe_upstream, served_model
from fllm_backends.openai.client import Client
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.openai.request_builder import UpstreamProfile
from fllm_backends.openai.response_reader import ResponseReader
from fllm_backends.openai.retokenizer import ByteAlphabet, Retokenizer
from fllm_backends.unsupported_options import reject_unsupported_options

HEALTH_CACHE_SECONDS = 2.0
"""How long the result of a health check is reused."""
_UPSTREAM_OPTIONS = (
    "devices",
    "dtype",
    "quantization",
    "runner",
    "load_format",
    "model_impl",
    "seed",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "kv_offload_memory",
    "kv_cache_dir",
    "speculative_config",
)
"""Fields of `BackendConfig` that are settings of the upstream server."""


def openai_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Create the backend from its options; raise `ConfigError` if one is invalid or unsupported."""
    reject_unsupported_options(
        config, _UPSTREAM_OPTIONS, "this is a setting of the upstream server; set it there"
    )
    return OpenAIBackend(config, backend_options(config.options, OpenAIOptions), context)


class OpenAIBackend:
    """Forwards requests to an upstream server and converts its responses to engine outputs."""

    _profile: UpstreamProfile
    _model: ModelDescription
    _max_model_len: int

    def __init__(self, config: BackendConfig, options: OpenAIOptions, context: BackendContext) -> None:
        self._config = config
        self._options = options
        self._progress = context.progress
        self._client = Client(options)
        self._health = HealthCheck(self._client)
        self._running = 0

    async def start(self) -> ModelCard:
        """Probe the server and load the model's tokenizer; raise `UserError`."""
        config, options = self._config, self._options
        try:
            served = await served_model(self._client, options, config.model)
            self._model = await asyncio.to_thread(
                read_model_description, config.model, config.revision, self._progress
            )
            self._profile = await probe_upstream(self._client, options, served, self._model.tokenizer)
            self._max_model_len = context_length(served, self._model.max_positions, config.max_model_len)
        except BaseException:
            await self.stop()
            raise
        self._alphabet = ByteAlphabet(self._model.tokenizer)
        profile = self._profile
        return self._model.card(
            max_model_len=self._max_model_len,
            defaults=profile.dialect.defaults(recommended_sampling(config.model) or self._model.defaults),
            artifact_id=served.artifact_id,
            grammar="vllm" if options.constraints == "vllm" else None,
            supports_cache_salt=profile.dialect.supports_cache_salt,
            runtime={"server": profile.dialect.kind, "model": served.id, "receive": profile.receive},
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the server's output; closing the generator disconnects, which aborts the request there."""
        request = self._fit_to_context(request)
        sampling = request.sampling
        body = self._profile.request_body(request, self._model.tokenizer)
        if not sampling.max_tokens and sampling.prompt_logprobs is None:
            yield EngineOutput(finish_reason="length")
            return
        reader = ResponseReader(request, self._model.eos_token_ids, self._retokenizer(request))
        self._running += 1
        try:
            events = self._client.events("/completions", body, request.request_id)
            async with aclosing(events):
                async for batch in events:
                    if output := reader.feed(batch):
                        yield output
            yield reader.finish()
        finally:
            self._running -= 1

    async def status(self) -> EngineStats:
        """Return the requests in flight; raise `BackendUnavailable` if the server does not respond."""
        await self._health.check()
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _fit_to_context(self, request: GenerateRequest) -> GenerateRequest:
        """Limit ``max_tokens`` to the rest of the context, because servers reject a larger value."""
        available = self._max_model_len - len(request.token_ids)
        if available < 1:
            raise ContextTooLong.for_prompt(
                self._max_model_len,
                f"the prompt has {len(request.token_ids)} tokens, which leaves no room for output",
                param="prompt",
            )
        sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, available))
        return replace(request, sampling=sampling)

    def _retokenizer(self, request: GenerateRequest) -> Retokenizer | None:
        if self._profile.receive != "text":
            return None
        return Retokenizer(self._model.tokenizer, self._alphabet, request.token_ids)


class HealthCheck:
    """Checks whether the server responds, at most once per `HEALTH_CACHE_SECONDS`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._checked_at: float | None = None
        self._error: str | None = None
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Raise `BackendUnavailable` if the server does not respond."""
        self._client.check()
        async with self._lock:
            if self._checked_at is None or time.monotonic() - self._checked_at > HEALTH_CACHE_SECONDS:
                self._error = await self._request()
                self._checked_at = time.monotonic()
        if self._error is not None:
            raise BackendUnavailable(self._error)

    async def _request(self) -> str | None:
        try:
            await self._client.page(f"{self._client.url}/models")
        except (BackendError, RequestError) as error:
            return error.message
        return None
