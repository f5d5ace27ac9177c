"""A request whose outputs arrive from an engine, within bounds: an engine can't fill the server's memory."""

from __future__ import annotations

from msgspec.structs import replace

from fllm import BackendError, EngineOutput, GenerateRequest, TokenLogprob
from fllm.pipeline.output_queue import OutputQueue

SPARE = 1 << 20
"""Tokens, log-probabilities and outputs that an engine may send in addition to those that were requested."""
UNREQUESTED = 4
"""Log-probabilities that an engine may send for each token in addition to the most likely ones."""


class OpenRequest(OutputQueue[EngineOutput]):
    """The queue of one request."""

    def __init__(self, request: GenerateRequest, max_model_len: int) -> None:
        super().__init__()
        sampling = request.sampling
        tokens = max_model_len if sampling.max_tokens is None else sampling.max_tokens
        for_tokens = tokens * (_items_per_token(sampling.logprobs) + len(sampling.logprob_token_ids))
        for_prompt = len(request.token_ids) * _items_per_token(sampling.prompt_logprobs)
        self._left = SPARE + for_tokens + for_prompt
        """Number of items that may still arrive: outputs, tokens, log-probabilities."""
        self._prompt_logprobs: list[TokenLogprob | None] = []
        """Those of the next output that have arrived before it."""

    def put(self, item: EngineOutput) -> None:
        """Queue an output; raise `BackendError` if there are more than the request can have."""
        left = self._left = self._left - 1 - len(item.token_ids)
        if item.logprobs is not None:
            left = self._spend(item.logprobs)
        if item.prompt_logprobs is not None:
            left = self._spend(item.prompt_logprobs)
        if left < 0:
            raise BackendError("the engine sends more than the request can have")
        if self._prompt_logprobs:
            item = replace(item, prompt_logprobs=self._prompt_logprobs)
            self._prompt_logprobs = []
        if self._failure is None:  # as in the base class, without the cost of a call for each token
            self._items.append(item)
            self._filled.set()

    def put_prompt_logprobs(self, logprobs: list[TokenLogprob | None]) -> None:
        """Keep some of the prompt's log-probabilities; if there are too many, the next `put` raises."""
        if self._spend(logprobs) >= 0:
            self._prompt_logprobs += logprobs

    def _spend(self, logprobs: list[TokenLogprob] | list[TokenLogprob | None]) -> int:
        self._left -= len(logprobs) + sum(len(each.top) for each in logprobs if each is not None)
        return self._left


def _items_per_token(logprobs: int | None) -> int:
    return 2 if logprobs is None else 2 + UNREQUESTED + logprobs
