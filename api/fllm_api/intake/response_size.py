"""Bounds on the size of a response, which a short request can make much larger than itself."""

from __future__ import annotations

from msgspec import Struct

from fllm.errors import RequestError
from fllm.pipeline.beam_search import BeamSearchParams
from fllm.requests.generation import GenerationRequest

MAX_ECHO_CHARS = 16 * 1024 * 1024
"""Maximum number of characters that ``echo`` may repeat in all choices together."""


MAX_PROMPT_TOKEN_IDS = 1024 * 1024
"""Maximum number of token ids of prompts that ``return_token_ids`` may repeat in all choices together."""


class LogprobBound(Struct, frozen=True, kw_only=True):
    """The bound on the log-probabilities of one response: an alternative of a token is one of them."""

    maximum: int
    per_token: int
    """Log-probabilities of each token: its own and those of its alternatives; 0 if there are none."""
    sequences: int
    """Sequences that are kept until the end."""
    param: str
    """The field that requests log-probabilities."""

    def limit_max_tokens(
        self, max_tokens: int, *, echoed: int = 0, prompt_entries: int = 0, reducible: bool = False
    ) -> int:
        """Return the number of output tokens, less if it is ``reducible`` and exceeds the bound.

        ``echoed`` is the number of echoed tokens with log-probabilities, and ``prompt_entries`` that of the
        log-probabilities of `prompt_logprobs`, in all sequences together. Raise `RequestError` if what the
        request asks for exceeds the bound.
        """
        if prompt_entries > self.maximum:
            raise RequestError(
                f"the response would have {prompt_entries} log-probabilities of prompt tokens; the maximum "
                f"is {self.maximum}: lower `prompt_logprobs`, `n` or the number of prompts",
                param="prompt_logprobs",
            )
        if not self.per_token:
            return max_tokens
        most = ((self.maximum - prompt_entries) // self.per_token - echoed) // self.sequences
        if max_tokens <= most:
            return max_tokens
        if reducible and most > 0:
            return most
        entries = self.per_token * (self.sequences * max_tokens + echoed) + prompt_entries
        tokens = f"{self.sequences} sequences of up to {max_tokens} tokens"
        if echoed:
            tokens += f" and {echoed} echoed tokens"
        if prompt_entries:
            tokens += f" and {prompt_entries} of the prompt"
        summary = f"{self.per_token} for each token of {tokens}"
        raise RequestError(
            f"the response could have {entries} log-probabilities, {summary}; the maximum is "
            f"{self.maximum}: lower `{self.param}`, `max_tokens`, `n` or the number of prompts",
            param=self.param,
        )


def logprob_bound(
    logprobs: int | None,
    prompts: int,
    n: int,
    best_of: int,
    beam: BeamSearchParams | None,
    maximum: int,
    param: str,
) -> LogprobBound:
    """Return the bound of a request; candidates of ``best_of`` are kept with at least one log-probability."""
    ranks = best_of > n and beam is None
    per_token = int(ranks) if logprobs is None else logprobs + 1
    if ranks and logprobs is None:
        param = "best_of"
    return LogprobBound(
        maximum=maximum, per_token=per_token, sequences=prompts * max(n, best_of), param=param
    )


def count_alternatives(body: GenerationRequest, logprobs: int | None) -> int | None:
    """Return the number of tokens whose log-probabilities a token has: ``logprobs``, or the given tokens.

    ``None``: there are no log-probabilities. Raise `RequestError` if there are tokens nevertheless.
    """
    if not body.logprob_token_ids:
        return logprobs
    if logprobs is None:
        raise RequestError("`logprob_token_ids` requires `logprobs`", param="logprob_token_ids")
    return len(body.logprob_token_ids)


def count_prompt_logprobs(body: GenerationRequest, prompt_tokens: int) -> int:
    """Return the number of log-probabilities that ``prompt_logprobs`` adds to a response."""
    return 0 if body.prompt_logprobs is None else (body.prompt_logprobs + 1) * prompt_tokens


def check_prompt_token_ids(count: int) -> None:
    """Raise `RequestError` if the choices together repeat too many token ids of prompts."""
    if count > MAX_PROMPT_TOKEN_IDS:
        raise RequestError(
            f"`return_token_ids` would repeat {count} token ids of prompts; the maximum is "
            f"{MAX_PROMPT_TOKEN_IDS}: lower `n` or the number of prompts",
            param="return_token_ids",
        )


def check_echo(chars: int) -> None:
    """Raise `RequestError` if the echoed texts of all choices have too many characters."""
    if chars > MAX_ECHO_CHARS:
        raise RequestError(
            f"`echo` would repeat {chars} characters in all choices; the maximum is {MAX_ECHO_CHARS}: "
            "lower `n` or the number of prompts",
            param="echo",
        )
