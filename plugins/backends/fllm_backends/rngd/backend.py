"""The ``rngd`` backend: run a model with the vendor's engine."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    BackendError,
    BackendUnavailable,
    ConfigError,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    Progress,
    RequestError,
    UserError,
)
from fllm.errors import ContextTooLong
from fllm.model import locate
from fllm.plugins.options import backend_options
from fllm_backends.checkpoints.model_description import ModelDescription, read_model_description
from fllm_backends.rngd.options import RngdOptions
from fllm_backends.rngd.translation import OutputTranslator, device_names, sampling_arguments
from fllm_backends.unsupported_options import reject_unsupported_options

SDK = "furiosa_llm"
_COMPILED_OPTIONS = (
    "dtype",
    "quantization",
    "runner",
    "load_format",
    "model_impl",
    "seed",
    "enable_prefix_caching",
    "kv_offload_memory",
    "kv_cache_dir",
    "speculative_config",
)
"""Fields of `BackendConfig` that the compiled bundle or the engine determines."""


def rngd_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Create the backend from its options; raise `ConfigError` if one is invalid or unsupported."""
    reject_unsupported_options(
        config,
        _COMPILED_OPTIONS,
        "the rngd backend can't change this, because its models are compiled in advance",
    )
    if locate(config.model).kind == "gguf":
        raise ConfigError(
            f"{config.model}: the rngd backend loads directories and Hub ids, but not GGUF files"
        )
    return RngdBackend(config, backend_options(config.options, RngdOptions), context)


class RngdBackend:
    """One model on the vendor's devices."""

    _model: ModelDescription
    _max_model_len: int

    def __init__(self, config: BackendConfig, options: RngdOptions, context: BackendContext) -> None:
        self._config = config
        self._options = options
        self._progress = context.progress
        self._llm: Any = None
        self._engine: Any = None
        self._running = 0

    async def start(self) -> ModelCard:
        """Load the model onto the devices; raise `UserError` if the SDK, the model or a device is missing."""
        if importlib.util.find_spec(SDK) is None:
            raise UserError(
                "the rngd backend needs the vendor's SDK in the same environment: "
                "`pip install furiosa-llm`, on a machine with its drivers"
            )
        self._progress(Progress("Loading the model onto the devices", 0, 0))
        await asyncio.to_thread(self._load)
        # The engine has resolved MODEL and may have chosen the revision that matches its own version.
        directory = str(self._llm.model_id_or_path)
        self._model = await asyncio.to_thread(read_model_description, directory, None, self._progress)
        self._max_model_len = self._llm.max_model_len
        return self._model.card(
            max_model_len=self._max_model_len,
            artifact_id=str(self._llm.artifact_id),
            runtime={"device": device_names(self._config.devices) or "npu"},
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the engine's outputs; closing the generator aborts the request there."""
        self._require_started()
        request = self._fit_to_context(request)
        arguments = sampling_arguments(request.sampling)
        if not request.sampling.max_tokens:
            yield self._empty_output(request)
            return
        translator = OutputTranslator(request, self._model.eos_token_ids)
        self._running += 1
        output = EngineOutput()
        try:
            async with aclosing(self._outputs(request, arguments)) as outputs:
                async for vendor_output in outputs:
                    output = translator.translate(vendor_output)
                    yield output
                    if output.finish_reason:
                        return
            self._require_started()
            raise BackendError("the engine ended a response without a finish reason")
        finally:
            self._running -= 1
            if output.finish_reason is None:
                await self._engine.abort(request.request_id)

    async def status(self) -> EngineStats:
        """Return the requests in flight; raise `BackendUnavailable` if the engine has died."""
        self._require_started()
        if not self._llm.engine.is_alive():
            raise BackendUnavailable("the engine on the device has died")
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """Shut the engine down and free the devices."""
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.engine.shutdown)

    def _load(self) -> None:
        try:
            from furiosa_llm import LLM, AsyncLLMEngine  # pyright: ignore[reportMissingImports]
            from furiosa_llm.metadata.config_types import SchedulerConfig  # pyright: ignore[reportMissingImports]

            config, options = self._config, self._options
            limits = {
                "max_concurrency": config.max_num_seqs,
                "max_num_batched_tokens": config.max_num_batched_tokens,
            }
            self._llm = LLM(
                config.model,
                fxb=options.fxb,
                revision=config.revision,
                devices=device_names(config.devices),
                data_parallel_size=options.data_parallel_size,
                pipeline_parallel_size=options.pipeline_parallel_size,
                max_io_memory_mb=options.max_io_memory_mb,
                max_model_len=config.max_model_len,
                scheduler_config=SchedulerConfig(**{k: v for k, v in limits.items() if v is not None}),
            )
            self._engine = AsyncLLMEngine.from_llm(self._llm)
        except (ImportError, AttributeError) as error:
            raise UserError(f"the vendor's SDK is installed but can't be used: {error}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the vendor's engine can't load {self._config.model}: {_one_line(error)}"
            ) from error

    async def _outputs(self, request: GenerateRequest, arguments: dict[str, Any]) -> AsyncGenerator[Any]:
        from furiosa_llm import SamplingParams  # pyright: ignore[reportMissingImports]
        from furiosa_llm.outputs import RequestOutputKind  # pyright: ignore[reportMissingImports]

        try:
            params = SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA)
            prompt = {"prompt_token_ids": request.token_ids}
            async with aclosing(self._engine.generate(prompt, params, request.request_id)) as outputs:
                async for output in outputs:
                    yield output
        except ValueError as error:  # the vendor's own checks rejected it
            raise RequestError(_one_line(error)) from error

    def _require_started(self) -> None:
        if self._llm is None:
            raise BackendUnavailable("the engine has not been started, or is stopping")

    def _fit_to_context(self, request: GenerateRequest) -> GenerateRequest:
        """Limit ``max_tokens`` to the rest of the context, because the engine rejects a larger value."""
        if not all(
            0 <= token_id < self._model.tokenizer.vocab_size for token_id in request.token_ids or (-1,)
        ):
            raise RequestError("the prompt is empty or contains an unknown token id", param="prompt")
        available = self._max_model_len - len(request.token_ids)
        if available < 1:
            raise ContextTooLong.for_prompt(
                self._max_model_len,
                f"the prompt has {len(request.token_ids)} tokens, which leaves no room for output",
                param="prompt",
            )
        sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, available))
        return replace(request, sampling=sampling)

    def _empty_output(self, request: GenerateRequest) -> EngineOutput:
        if request.sampling.prompt_logprobs is not None:
            raise RequestError(
                "`max_tokens` 0 is not supported: the engine of this device always generates a token",
                param="max_tokens",
                code="unsupported_parameter",
            )
        return EngineOutput(finish_reason="length")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
