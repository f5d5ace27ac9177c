"""A plugin file with a backend that returns the prompt's tokens, or misbehaves on request.

``options["start"]`` and the request's ``group`` select how.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Iterable

from fllm import (
    BackendConfig,
    BackendContext,
    BackendEntry,
    BackendUnavailable,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    ModelError,
    Progress,
    RequestError,
    TokenLogprob,
    hookimpl,
)
from fllm.errors import BackendLost, ContextTooLong


@hookimpl
def fllm_backends() -> Iterable[BackendEntry]:
    yield BackendEntry("echo", "inner_backend:Echo")


class UnreadableModel(ModelError):
    """An error class that the parent does not have."""


class Echo:
    def __init__(self, config: BackendConfig, context: BackendContext) -> None:
        self.config = config
        self.context = context
        self.aborted = 0
        self.lost = False

    async def start(self) -> ModelCard:
        match self.config.options.get("start"):
            case "refuse":
                raise UnreadableModel("there is no model")
            case "die":
                os._exit(3)
            case "refuse the second":
                with open(self.config.model, "a+") as starts:
                    starts.write("x")
                if os.path.getsize(self.config.model) == 2:
                    raise ModelError("not now")
            case "wait":
                print("loading", flush=True)
                await asyncio.sleep(3600)
        await asyncio.to_thread(self.context.progress, Progress("weights", 1, 2))
        runtime = {
            "pid": os.getpid(),
            "chain": list(self.config.chain),
            "environment": {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")},
        }
        return ModelCard(
            tokenizer=self.config.options.get("tokenizer", "nowhere"), max_model_len=64, runtime=runtime
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        await self.misbehave(request.group)
        if request.group == "puzzle":
            yield EngineOutput(token_ids=[object()])  # type: ignore[list-item]
            await asyncio.sleep(3600)
        if request.group == "logprobs":
            logprobs = [None, *(TokenLogprob(token, -0.5, ((token, -0.5),)) for token in request.token_ids)]
            yield EngineOutput(token_ids=[7], prompt_logprobs=logprobs)
            yield EngineOutput(token_ids=[8], finish_reason="length")
            return
        if request.group == "at once":
            yield EngineOutput(token_ids=request.token_ids, finish_reason="length")
            return
        for token in request.token_ids[:-1]:
            await asyncio.sleep(0)
            yield EngineOutput(token_ids=[token])
        if request.group != "trail off":
            yield EngineOutput(token_ids=request.token_ids[-1:], finish_reason="length", queue_time=0.25)

    async def misbehave(self, how: str) -> None:
        match how:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "too long":
                raise ContextTooLong("it does not fit", param="messages")
            case "refuse":
                raise RequestError("no", param="seed", code="odd")
            case "fail":
                raise ValueError("an error of third-party code")
            case "wait":
                print("waiting", flush=True)
                try:
                    await asyncio.sleep(3600)
                finally:
                    self.aborted += 1
            case "lost":
                self.lost = True
                await asyncio.sleep(3600)
            case "hang":
                print("hanging", flush=True)
                time.sleep(3600)

    async def status(self) -> EngineStats:
        if self.config.options.get("status") == "ill":
            raise BackendUnavailable("not today")
        if self.lost:
            raise BackendLost("the device has fallen off the bus")
        return EngineStats(preemptions=self.aborted)

    async def stop(self) -> None:
        print("stopped", flush=True)
