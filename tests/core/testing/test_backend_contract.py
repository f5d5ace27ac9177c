"""The contract of backends: `EchoBackend` passes, and each violation is detected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    RequestError,
)
from fllm.constraints import ConstString
from fllm.testing import BackendContract, EchoBackend, echo_model, run_contract
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob


def build(kind: type[EchoBackend] = EchoBackend) -> EchoBackend:
    return kind(BackendConfig(model="nowhere", max_model_len=64), BackendContext())


class EchoContract(BackendContract):
    prompts = ((1, 2, 3), (4, 5, 6, 7))
    supports_sampling = False
    supports_logprobs: bool | None = False
    timeout = 5.0

    @classmethod
    def backend(cls) -> Backend:
        return build()


class TestEcho(EchoContract):
    pass


class Broken(EchoBackend):
    """Changes the outputs of the echo backend."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        async for step in super().generate(request):
            for changed in self.change(step, request):
                yield changed

    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        raise NotImplementedError


class TwoFinishes(Broken):
    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [step, step] if step.finish_reason else [step]


class NoFinish(Broken):
    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [EngineOutput(token_ids=step.token_ids)]


class TokensAfterTheEnd(Broken):
    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [step, EngineOutput(token_ids=[1])] if step.finish_reason else [step]


class OneTokenTooMany(Broken):
    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return (
            [EngineOutput(token_ids=[1], finish_reason=step.finish_reason)]
            if step.finish_reason == "length"
            else [step]
        )


class OmitsStopToken(Broken):
    """Does not include the stop token in the output."""

    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [
            step
            if step.stop_token is None
            else EngineOutput(finish_reason="stop", stop_token=step.stop_token)
        ]


class NotReproducible(Broken):
    outputs = 0

    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        self.outputs += 1
        return [
            EngineOutput(
                token_ids=[token + self.outputs for token in step.token_ids], finish_reason=step.finish_reason
            )
        ]


class DependsOnLoad(Broken):
    """The tokens depend on the number of running requests."""

    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [
            EngineOutput(token_ids=[self._running for _ in step.token_ids], finish_reason=step.finish_reason)
        ]


class NeverRejects(EchoBackend):
    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        try:
            async for step in super().generate(request):
                yield step
        except RequestError:
            yield EngineOutput(finish_reason="length")


class NeverFrees(EchoBackend):
    started = 0

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        self.started += 1
        async for step in super().generate(request):
            yield step
        self.started -= 1

    async def status(self) -> EngineStats:
        self._require_started()
        return EngineStats(running=self.started)


class ReportsNoSequences(EchoBackend):
    async def status(self) -> EngineStats:
        self._require_started()
        return EngineStats()


class StopDoesNothing(EchoBackend):
    async def stop(self) -> None:
        pass


class StopHangs(EchoBackend):
    async def stop(self) -> None:
        await asyncio.Event().wait()


class StopsOnce(EchoBackend):
    async def stop(self) -> None:
        assert self._started, "it is stopped"
        await super().stop()


class CardCannotBeEncoded(EchoBackend):
    async def start(self) -> ModelCard:
        await super().start()
        return ModelCard(tokenizer="", max_model_len=64, runtime={"device": object()})


class IgnoresSeed(Broken):
    """Returns the same output for each seed."""

    def change(self, step: EngineOutput, request: GenerateRequest) -> list[EngineOutput]:
        return [step]


def failures(kind: type[EchoBackend], **attributes: Any) -> dict[str, str]:
    case = type("Case", (EchoContract,), {"backend": classmethod(lambda cls: build(kind)), **attributes})
    return {result.test: str(result.error) for result in run_contract(case) if result.error}


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (TwoFinishes, "max tokens limits the output", "only the last EngineOutput may have a finish_reason"),
        (NoFinish, "max tokens limits the output", "the last EngineOutput must have a finish_reason"),
        (
            TokensAfterTheEnd,
            "max tokens limits the output",
            "the last EngineOutput must have a finish_reason",
        ),
        (OneTokenTooMany, "max tokens limits the output", "max_tokens=0 must give 0 tokens"),
        (OmitsStopToken, "a stop token ends the output and is included", "must end after its first"),
        (
            NotReproducible,
            "greedy output is reproducible and independent of the batch",
            "greedy output of the same prompt must be the same",
        ),
        (
            DependsOnLoad,
            "concurrent requests do not affect each other",
            "the output depends on concurrent requests",
        ),
        (
            NeverRejects,
            "invalid prompts are rejected",
            "a prompt of 0 tokens that begins with [] must be rejected",
        ),
        (NeverFrees, "closing the stream aborts the request", "status() still reports sequences"),
        (
            ReportsNoSequences,
            "closing the stream aborts the request",
            "reports no running or waiting sequence while four",
        ),
        (
            StopDoesNothing,
            "stop ends running requests",
            "after stop(), status() and generate() must raise BackendUnavailable",
        ),
        (StopsOnce, "stop ends running requests", "it is stopped"),
        (StopsOnce, "stop works before start", "it is stopped"),
        (CardCannotBeEncoded, "the model card can be encoded and fits the prompts", "object"),
    ],
)
def test_a_violation_is_detected(kind: type[EchoBackend], test: str, message: str) -> None:
    assert message in failures(kind, timeout=0.5)[test]


def test_a_backend_that_ignores_the_seed_is_detected() -> None:
    found = failures(IgnoresSeed, supports_sampling=True)
    assert "eight seeds gave the same output" in found["the seed determines the output"]


def test_a_backend_that_hangs_fails_after_the_timeout() -> None:
    found = failures(StopHangs, timeout=0.2)
    assert found["stop ends running requests"] == (
        "not done after 0.2 s; the backend hangs, or `timeout` is too short"
    )
    assert "stop works before start" in found


class IgnoresConstraints(EchoBackend):
    """Declares a grammar backend, and ignores constraints."""

    async def start(self) -> ModelCard:
        self._card = replace(await super().start(), grammar="none that works")
        return self._card


class ObeysConstString(IgnoresConstraints):
    """Obeys a constraint if it is a constant string."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        if isinstance(request.constraint, ConstString):
            tokenizer = Tokenizer.load(Path(self._card.tokenizer))
            token_ids = tokenizer.encode(request.constraint.text, add_special_tokens=False)
            yield EngineOutput(token_ids=token_ids, finish_reason="stop")
        elif request.constraint is not None:
            raise RequestError("only constant strings are supported")
        else:
            async for step in super().generate(request):
                yield step


class AcceptsInvalidSchemas(ObeysConstString):
    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        known = request.constraint if isinstance(request.constraint, ConstString) else None
        async for step in super().generate(replace(request, constraint=known)):
            yield step


CONSTRAINED = "constrained output obeys the constraint"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ObeysConstString, None),
        (IgnoresConstraints, "expected 'yes', the only text that the constraint allows"),
        (AcceptsInvalidSchemas, "must be rejected with RequestError"),
    ],
)
def test_a_violated_constraint_is_detected(
    kind: type[EchoBackend], message: str | None, tmp_path: Path
) -> None:
    config = BackendConfig(model=str(echo_model(tmp_path)), max_model_len=64)
    backend = classmethod(lambda cls: kind(config, BackendContext()))
    case = type("Case", (EchoContract,), {"backend": backend})
    found = {result.test: str(result.error) for result in run_contract(case) if result.error}
    assert found.keys() == (set() if message is None else {CONSTRAINED})
    assert (message or "") in found.get(CONSTRAINED, "")


class WithLogprobs(Broken):
    """Returns log-probabilities."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        sampling = request.sampling
        plain = GenerateRequest(
            request.request_id, request.token_ids, replace(sampling, logprobs=None, prompt_logprobs=None)
        )
        prompt_logprobs = None
        if sampling.prompt_logprobs is not None:
            prompt_logprobs = [None, *(self.logprob(token) for token in request.token_ids[1:])]
        async for step in EchoBackend.generate(self, plain):
            logprobs = [self.logprob(token) for token in step.token_ids]
            yield EngineOutput(
                token_ids=step.token_ids,
                logprobs=logprobs if sampling.logprobs is not None else None,
                finish_reason=step.finish_reason,
                stop_token=step.stop_token,
                prompt_logprobs=prompt_logprobs,
            )

    def logprob(self, token: int) -> TokenLogprob:
        return TokenLogprob(token, -0.1, ((token, -0.1), (token + 1, -3.0)))


class ProbabilitiesAboveOne(WithLogprobs):
    def logprob(self, token: int) -> TokenLogprob:
        return TokenLogprob(token, -0.1, ((token, -0.1), (token + 1, -0.2)))


class UnsortedTop(WithLogprobs):
    def logprob(self, token: int) -> TokenLogprob:
        return TokenLogprob(token, -0.1, ((token + 1, -3.0), (token, -0.1)))


LOGPROBS = "logprobs are complete or rejected"


@pytest.mark.parametrize("logprobs", [True, None])
def test_complete_log_probabilities_pass(logprobs: bool | None) -> None:
    assert failures(WithLogprobs, supports_logprobs=logprobs) == {}


@pytest.mark.parametrize(
    ("kind", "logprobs", "message"),
    [
        (EchoBackend, True, "the echo backend does not support log-probabilities"),
        (WithLogprobs, False, "must be rejected with RequestError"),
        (ProbabilitiesAboveOne, True, "add up to more than 1"),
        (UnsortedTop, True, "top must be sorted, the most likely token first"),
    ],
)
def test_wrong_log_probabilities_are_detected(kind: type[EchoBackend], logprobs: bool, message: str) -> None:
    assert message in failures(kind, supports_logprobs=logprobs)[LOGPROBS]
