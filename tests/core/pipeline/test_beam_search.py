from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.errors import BackendError, RequestError
from fllm.pipeline.beam_search import BeamSearchParams, Hypothesis, beam_search
from fllm.values import EngineOutput, EngineStats, GenerateRequest, ModelCard, SamplingParams, TokenLogprob

VOCABULARY = 8
PROMPT = [3, 1]
NOTHING = -1e9


def distribution(context: Sequence[int]) -> list[float]:
    """Return the log-probability of each token after a context."""
    weights = [random.Random(repr((list(context), token))).random() ** 3 for token in range(VOCABULARY)]
    return [math.log(weight / sum(weights)) for weight in weights]


class TinyBackend:
    """A `Backend` whose model is `distribution`; it records its requests."""

    def __init__(self, error: Exception | None = None) -> None:
        self.requests: list[GenerateRequest] = []
        self.open = 0
        self.error = error

    async def start(self) -> ModelCard:
        return ModelCard(tokenizer="", max_model_len=100)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        self.requests.append(request)
        self.open += 1
        try:
            await asyncio.sleep(0)
            if self.error and len(self.requests) > 1:
                raise self.error
            yield self.output(request)
        finally:
            self.open -= 1

    def output(self, request: GenerateRequest) -> EngineOutput:
        logprobs = distribution(request.token_ids)
        ranked = sorted(range(VOCABULARY), key=lambda token: -logprobs[token])
        top = tuple((token, logprobs[token]) for token in ranked[: request.sampling.logprobs])
        best = TokenLogprob(ranked[0], logprobs[ranked[0]], top)
        return EngineOutput(
            token_ids=[best.token_id],
            logprobs=[best],
            finish_reason="length",
            cached_tokens=len(request.token_ids),
        )

    async def status(self) -> EngineStats:
        return EngineStats()

    async def stop(self) -> None:
        pass


def search(
    params: BeamSearchParams, eos: Sequence[int] = (), backend: TinyBackend | None = None, **sampling: object
) -> list[Hypothesis]:
    request = GenerateRequest("r", PROMPT, SamplingParams(**{"max_tokens": 4, **sampling}), "group")  # type: ignore[arg-type]
    return asyncio.run(beam_search(backend or TinyBackend(), request, params, eos))


def sum_of(token_ids: Sequence[int]) -> float:
    return sum(distribution(PROMPT + list(token_ids[:i]))[token] for i, token in enumerate(token_ids))


def all_sequences(length: int, stops: set[int], min_tokens: int) -> Iterator[tuple[int, ...]]:
    """Yield all outputs of at most ``length`` tokens."""
    for size in range(1, length + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=size):
            ends = [place for place, token in enumerate(tokens, 1) if token in stops]
            whole = ends == [size] and size > min_tokens
            if whole or (not ends and size == length):
                yield tokens


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("min_tokens", [0, 2])
def test_a_beam_that_prunes_nothing_finds_the_best_of_all_outputs(length_penalty: float, min_tokens: int):
    params = BeamSearchParams(width=600, length_penalty=length_penalty)
    found = search(params, eos=[0, 5], max_tokens=3, min_tokens=min_tokens)
    everything = list(all_sequences(3, {0, 5}, min_tokens))
    everything.sort(key=lambda tokens: -sum_of(tokens) / len(tokens) ** length_penalty)
    assert [tuple(each.token_ids) for each in found] == everything
    assert found[0].logprob == pytest.approx(sum_of(everything[0]))


def reference(
    *,
    width: int,
    length_penalty: float,
    early_stopping: object,
    stops: set[int],
    max_tokens: int,
    min_tokens: int,
) -> list[list[int]]:
    """Search as transformers does: in fixed-size tables, where missing entries have a score of -1e9."""
    running: list[tuple[float, list[int]]] = [(0.0, [])] + [(NOTHING, [])] * (width - 1)
    finished: list[tuple[float, list[int]]] = [(NOTHING, [])] * width
    for length in range(1, max_tokens + 1):
        candidates = []
        for score, tokens in running:
            for token, logprob in enumerate(distribution(PROMPT + tokens)):
                banned = token in stops and length <= min_tokens
                candidates.append((-math.inf if banned else score + logprob, [*tokens, token]))
        candidates.sort(key=lambda candidate: -candidate[0])
        candidates = candidates[: max(2, 1 + len(stops)) * width]
        hits = [tokens[-1] in stops or length == max_tokens for _, tokens in candidates]
        alive = [(s + (NOTHING if hit else 0), t) for (s, t), hit in zip(candidates, hits, strict=True)]
        running = sorted(alive, key=lambda each: -each[0])[:width]
        for (score, tokens), hit in list(zip(candidates, hits, strict=True))[:width]:
            finished.append((score / length**length_penalty if hit else NOTHING, tokens))
        finished = sorted(finished, key=lambda each: -each[0])[:width]
        full = all(score > NOTHING / 2 for score, _ in finished)
        best_length = max_tokens if early_stopping == "never" and length_penalty > 0 else length
        improvable = not full or running[0][0] / best_length**length_penalty > finished[-1][0]
        if not improvable or (full and early_stopping is True):
            break
    return [tokens for _, tokens in finished]


@given(
    width=st.integers(1, 4),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.7, 1.0, 3.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
    stops=st.sets(st.integers(0, VOCABULARY - 1), max_size=2),
    max_tokens=st.integers(1, 7),
    min_tokens=st.integers(0, 3),
)
def test_a_beam_that_prunes_finds_what_transformers_would(
    width: int,
    length_penalty: float,
    early_stopping: bool | Literal["never"],
    stops: set[int],
    max_tokens: int,
    min_tokens: int,
):
    params = BeamSearchParams(width=width, length_penalty=length_penalty, early_stopping=early_stopping)
    found = search(params, eos=sorted(stops), max_tokens=max_tokens, min_tokens=min_tokens)
    assert [each.token_ids for each in found] == reference(
        width=width,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        stops=stops,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
    )


def test_stopping_later_takes_more_rounds():
    rounds = []
    for early_stopping in (True, False, "never"):
        backend = TinyBackend()
        search(BeamSearchParams(width=2, early_stopping=early_stopping), [0, 5, 6], backend, max_tokens=30)  # type: ignore[arg-type]
        rounds.append(max(len(request.token_ids) for request in backend.requests))
    assert rounds == sorted(rounds)
    assert rounds[0] < rounds[2]


def test_ignored_eos_is_an_ordinary_token_and_stop_token_ids_still_stop():
    params = BeamSearchParams(width=2, length_penalty=0.0)
    endless = search(params)
    eos = endless[0].token_ids[0]
    assert search(params, eos=[eos], ignore_eos=True) == endless
    stopped = search(params, stop_token_ids=(eos,), ignore_eos=True)
    assert stopped[0].token_ids == [eos]
    assert stopped == search(params, eos=[eos])


def test_all_beams_share_the_namespace_of_the_request():
    backend = TinyBackend()
    request = GenerateRequest("r", PROMPT, SamplingParams(max_tokens=3), cache_salt="salt", shared_tokens=1)
    asyncio.run(beam_search(backend, request, BeamSearchParams(width=3), ()))
    assert {(each.cache_salt, each.shared_tokens) for each in backend.requests} == {("salt", 1)}


def test_a_hypothesis_is_emitted_as_one_output():
    for each in search(BeamSearchParams(width=4), eos=[0, 5], max_tokens=3, logprobs=2):
        output = each.to_output(with_logprobs=True)
        stopped = output.token_ids[-1] in (0, 5)
        assert (output.finish_reason, output.stop_token) == (
            ("stop", output.token_ids[-1]) if stopped else ("length", None)
        )
        assert output.cached_tokens == len(PROMPT)
        assert [token.token_id for token in output.logprobs or []] == output.token_ids
        assert [len(token.top) for token in output.logprobs or []] == [2] * len(output.token_ids)
        assert sum(token.logprob for token in output.logprobs or []) == pytest.approx(each.logprob)
        assert each.to_output(with_logprobs=False).logprobs is None


def test_all_beams_of_a_round_are_requested_at_once_and_in_one_group():
    backend = TinyBackend()
    search(BeamSearchParams(width=3), backend=backend, max_tokens=3)
    assert [len(request.token_ids) for request in backend.requests] == [2, 3, 3, 3, 4, 4, 4]
    assert {request.group for request in backend.requests} == {"group"}
    assert len({request.request_id for request in backend.requests}) == 7


def test_only_the_first_round_requests_logprobs_of_the_prompt():
    backend = TinyBackend()
    search(BeamSearchParams(width=2), backend=backend, prompt_logprobs=1)
    assert [request.sampling.prompt_logprobs for request in backend.requests] == [1] + [None] * 6


def test_max_tokens_0_gives_one_empty_output():
    [empty] = search(BeamSearchParams(width=3), max_tokens=0)
    assert empty.to_output(with_logprobs=False) == EngineOutput(finish_reason="length")


@pytest.mark.parametrize("error", [BackendError("broken"), RequestError("too long")])
def test_an_error_of_the_backend_is_raised_unchanged_and_leaves_nothing_open(error: Exception):
    backend = TinyBackend(error)
    with pytest.raises(type(error)) as caught:
        search(BeamSearchParams(width=3), backend=backend)
    assert caught.value is error
    assert backend.open == 0


def test_a_cancelled_search_leaves_nothing_open():
    async def run() -> None:
        backend = TinyBackend()
        request = GenerateRequest("r", PROMPT, SamplingParams(max_tokens=50))
        task = asyncio.create_task(beam_search(backend, request, BeamSearchParams(width=3), ()))
        while len(backend.requests) < 5:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backend.open == 0

    asyncio.run(run())
