"""The vendor's engine behind our door."""

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
from fllm.plugins.backend_options import backend_options
from fllm_backends.checkpoints.model_description import ModelDescription, read_model_description
from fllm_backends.rngd.options import RngdOptions
from fllm_backends.rngd.translation import Answer, device_names, sampling_params
from fllm_backends.unsupported_options import reject_unsupported_options

SDK = "furiosa_llm"
_COMPILED = (
    "dtype",
    "quantization",
    "load_format",
    "seed",
    "enable_prefix_caching",
    "speculative_config",
)
"""What the bundle, or the engine, has decided."""


def rngd_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """The vendor's engine for a model; raises `ConfigError` for options that it can't obey."""
    reject_unsupported_options(
        config, _COMPILED, "the rngd backend can't change that: its models are compiled beforehand"
    )
    if locate(config.model).kind == "gguf":
        raise ConfigError(f"{config.model}: the rngd backend loads directories and Hub ids, and no GGUF file")
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
        """Load the model onto the devices; raises `UserError` where SDK, model or device is missing."""
        if importlib.util.find_spec(SDK) is None:
            raise UserError(
                "the rngd backend needs the vendor's SDK beside this server: "
                "`pip install furiosa-llm`, on a machine with its drivers"
            )
        self._progress(Progress("Loading the model onto the devices", 0, 0))
        await asyncio.to_thread(self._load)
        # The engine has resolved MODEL, and perhaps chosen the revision that fits its own version.
        directory = str(self._llm.model_id_or_path)
        self._model = await asyncio.to_thread(read_model_description, directory, None, self._progress)
        self._max_model_len = self._llm.max_model_len
        return self._model.card(
            max_model_len=self._max_model_len,
            artifact_id=str(self._llm.artifact_id),
            runtime={"device": device_names(self._config.devices) or "npu"},
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """The engine's outputs as steps; closing the generator aborts the request there."""
        self._check()
        request = self._fitting(request)
        arguments = sampling_params(request.sampling)
        if not request.sampling.max_tokens:
            yield self._nothing(request)
            return
        answer = Answer(request, self._model.eos_token_ids)
        self._running += 1
        step = EngineOutput()
        try:
            async with aclosing(self._outputs(request, arguments)) as outputs:
                async for output in outputs:
                    step = answer.step(output)
                    yield step
                    if step.finish_reason:
                        return
            self._check()
            raise BackendError("the engine ended an answer without saying why")
        finally:
            self._running -= 1
            if step.finish_reason is None:
                await self._engine.abort(request.request_id)

    async def status(self) -> EngineStats:
        """The sequences in flight; raises `BackendUnavailable` where the engine has died."""
        self._check()
        if not self._llm.engine.is_alive():
            raise BackendUnavailable("the engine on the device has ended")
        return EngineStats(running=self._running)

    async def stop(self) -> None:
        """Shut the engine down, which frees the devices."""
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
            raise UserError(f"the vendor's SDK is there, and can't be used: {error}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"the vendor's engine can't load {self._config.model}: {_line(error)}") from error

    async def _outputs(self, prompt: GenerateRequest, arguments: dict[str, Any]) -> AsyncGenerator[Any]:
        from furiosa_llm import SamplingParams  # pyright: ignore[reportMissingImports]
        from furiosa_llm.outputs import RequestOutputKind  # pyright: ignore[reportMissingImports]

        try:
            params = SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA)
            asked = {"prompt_token_ids": prompt.token_ids}
            async with aclosing(self._engine.generate(asked, params, prompt.request_id)) as outputs:
                async for output in outputs:
                    yield output
        except ValueError as error:  # what the vendor's own checks refuse
            raise RequestError(_line(error)) from error

    def _check(self) -> None:
        if self._llm is None:
            raise BackendUnavailable("the engine has not been started, or is stopping")

    def _fitting(self, prompt: GenerateRequest) -> GenerateRequest:
        """The prompt with a maximum that the context has room for, since the engine refuses a larger one."""
        if not all(
            0 <= token_id < self._model.tokenizer.vocab_size for token_id in prompt.token_ids or (-1,)
        ):
            raise RequestError("the prompt is empty, or has a token that the model lacks", param="prompt")
        room = self._max_model_len - len(prompt.token_ids)
        if room < 1:
            raise ContextTooLong(
                f"the context has {self._max_model_len} tokens; the prompt has {len(prompt.token_ids)}",
                param="prompt",
            )
        sampling = replace(prompt.sampling, max_tokens=min(prompt.sampling.max_tokens, room))
        return replace(prompt, sampling=sampling)

    def _nothing(self, prompt: GenerateRequest) -> EngineOutput:
        if prompt.sampling.prompt_logprobs is not None:
            raise RequestError(
                "`max_tokens` 0 is not supported: the engine of this device always generates a token",
                param="max_tokens",
                code="unsupported_parameter",
            )
        return EngineOutput(finish_reason="length")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
