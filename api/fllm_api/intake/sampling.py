"""Resolve the sampling parameters of a request.

A field of the request takes precedence over the model's ``generation_config.json``, which takes precedence
over vLLM's default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from fllm.errors import ContextTooLong, RequestError
from fllm.pipeline.beam_search import BeamSearchParams
from fllm.requests.generation import GenerationRequest
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, SamplingParams
from fllm_api.app_state import AppState
from fllm_api.intake.tokenization import anchored

T = TypeVar("T")

MAX_STOP_CHARS = 16 * 1024
"""Maximum total length of the stop strings, and of the bad words. It bounds the automaton that finds them."""


def first_set(*values: T | None, default: T) -> T:
    """Return the first value that is not ``None``, or ``default``."""
    return next((value for value in values if value is not None), default)


def resolve_max_tokens(
    card: ModelCard, prompt_tokens: int, requested: int | None, default: int | None, *, param: str
) -> int:
    """Return the maximum number of output tokens for a prompt of ``prompt_tokens``.

    Both maxima are upper bounds: the rest of the context is a maximum in any case. Raise `ContextTooLong` for
    ``param`` if the prompt leaves no room for output, unless none is requested.
    """
    left = card.max_model_len - prompt_tokens
    if left < (0 if requested == 0 else 1):
        raise ContextTooLong.for_prompt(
            card.max_model_len,
            f"the prompt has {prompt_tokens} tokens, which leaves no room for output",
            param=param,
        )
    return min(first_set(requested, default, default=left), left)


def resolve_sampling(
    request: GenerationRequest,
    server: AppState,
    *,
    max_tokens: int,
    logprobs: int | None,
    echoed_logprobs: int | None = None,
    stop_token_ids: Iterable[int] = (),
) -> SamplingParams:
    """Return the sampling parameters of a request, with defaults for the fields that are not set.

    ``echoed_logprobs`` is the number of most likely tokens for each token of an echoed prompt, and
    ``stop_token_ids`` are added to those of the request.
    """
    defaults = server.card.defaults
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=_min_tokens(request, max_tokens),
        temperature=first_set(request.temperature, defaults.temperature, default=1.0),
        top_p=first_set(request.top_p, defaults.top_p, default=1.0),
        top_k=first_set(request.top_k, defaults.top_k, default=-1) or -1,
        min_p=first_set(request.min_p, defaults.min_p, default=0.0),
        presence_penalty=first_set(request.presence_penalty, default=0.0),
        frequency_penalty=first_set(request.frequency_penalty, default=0.0),
        repetition_penalty=first_set(request.repetition_penalty, defaults.repetition_penalty, default=1.0),
        logit_bias=request.logit_bias or {},
        allowed_token_ids=tuple(dict.fromkeys(request.allowed_token_ids or ())),
        bad_words_token_ids=_bad_words_token_ids(request.bad_words or (), server.tokenizer),
        seed=request.seed,
        stop_token_ids=(*(request.stop_token_ids or ()), *stop_token_ids),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        logprob_token_ids=tuple(dict.fromkeys(request.logprob_token_ids or ())),
        prompt_logprobs=max(
            (count for count in (request.prompt_logprobs, echoed_logprobs) if count is not None), default=None
        ),
    )


def requested_max_tokens(card: ModelCard, *values: int | None) -> int | None:
    """Return the first of the values that is set. -1 stands for the whole context."""
    requested = first_set(*values, default=None)
    return card.max_model_len if requested == -1 else requested


def resolve_candidates(request: GenerationRequest) -> tuple[int, int, BeamSearchParams | None]:
    """Return ``n``, ``best_of`` and the beam search of a request. Raise `RequestError` if they conflict."""
    n = first_set(request.n, default=1)
    best_of = first_set(request.best_of, default=n)
    if best_of < n:
        raise RequestError(f"`best_of` ({best_of}) must be at least `n` ({n})", param="best_of")
    if request.use_beam_search:
        return n, 1, _beam_search_params(request, best_of)
    if request.length_penalty not in (None, 1.0):
        raise RequestError("`length_penalty` requires `use_beam_search`", param="length_penalty")
    if request.early_stopping not in (None, False):
        raise RequestError("`early_stopping` requires `use_beam_search`", param="early_stopping")
    if request.stream and best_of > n:
        raise RequestError(
            "`best_of` above `n` can't be streamed: the best candidates are known only at the end",
            param="best_of",
        )
    return n, best_of, None


def stop_strings(request: GenerationRequest) -> tuple[str, ...]:
    """Return the stop strings of a request. Raise `RequestError` if they are too long in total."""
    stop = (request.stop,) if isinstance(request.stop, str) and request.stop else tuple(request.stop or ())
    if (length := sum(map(len, stop))) > MAX_STOP_CHARS:
        raise RequestError(
            f"`stop` has {length} characters in total; the maximum is {MAX_STOP_CHARS}", param="stop"
        )
    return stop


def check_fields(request: GenerationRequest, server: AppState) -> None:
    """Raise `RequestError` for fields that the server or its model can't honour."""
    if server.card.pooling is not None:
        raise RequestError(
            "this model does not generate text; use /v1/embeddings, /rerank, /score or /classify",
            param="model",
            code="unsupported_model",
        )
    if request.stream_options is not None and not request.stream:
        raise RequestError("`stream_options` requires `stream`: true", param="stream_options")
    if request.cache_salt is not None and not server.card.supports_cache_salt:
        raise RequestError(
            "`cache_salt` is not supported by this server's backend",
            param="cache_salt",
            code="unsupported_parameter",
        )
    check_token_ids(request.logit_bias or (), server.tokenizer, "logit_bias")
    check_token_ids(request.stop_token_ids or (), server.tokenizer, "stop_token_ids")
    check_token_ids(request.allowed_token_ids or (), server.tokenizer, "allowed_token_ids")
    check_token_ids(request.logprob_token_ids or (), server.tokenizer, "logprob_token_ids")
    if (length := sum(map(len, request.bad_words or ()))) > MAX_STOP_CHARS:
        raise RequestError(
            f"`bad_words` has {length} characters in total; the maximum is {MAX_STOP_CHARS}",
            param="bad_words",
        )


def _bad_words_token_ids(words: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Return the tokens of each text at the beginning of a text, and within one."""
    stripped = [text for word in words if (text := word.lstrip())]
    spellings = dict.fromkeys([*words, *stripped, *(f" {text}" for text in stripped)])
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in spellings]
    for text in () if tokenizer.byte_level else spellings:
        within, begin = anchored(text, tokenizer)
        encoded.append(tokenizer.encode(within, add_special_tokens=False)[begin:])
    return tuple(dict.fromkeys(tuple(ids) for ids in encoded if ids))


def check_sequences(prompts: int, n: int, best_of: int, beam: BeamSearchParams | None, capacity: int) -> None:
    """Raise `RequestError` if a request needs more sequences than its client may ever have in flight."""
    sequences = prompts * (beam.width if beam else max(n, best_of))
    if sequences > capacity:
        field = "prompt" if prompts > 1 else "best_of" if beam or best_of > n else "n"
        raise RequestError(
            f"`{field}`: the request needs {sequences} sequences, and {capacity} may be in flight at most",
            param=field,
        )


def _beam_search_params(request: GenerationRequest, width: int) -> BeamSearchParams:
    if request.stream:
        raise RequestError(
            "`use_beam_search` can't be streamed: the best beam is known only at the end",
            param="use_beam_search",
        )
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "repetition_penalty": 1,
        "logit_bias": {},
        "allowed_token_ids": None,
        "bad_words": [],
        "logprob_token_ids": [],
    }
    for name, value in neutral.items():
        if getattr(request, name) not in (None, value):
            raise RequestError(f"`{name}` can't be combined with `use_beam_search`", param=name)
    if width < 2:
        raise RequestError(
            f"`use_beam_search` requires `best_of`, the beam width, to be at least 2; it is {width}",
            param="best_of",
        )
    return BeamSearchParams(
        width=width,
        length_penalty=first_set(request.length_penalty, default=1.0),
        early_stopping=first_set(request.early_stopping, default=False),
    )


def _min_tokens(request: GenerationRequest, max_tokens: int) -> int:
    minimum = request.min_tokens or 0
    if minimum > max_tokens:
        raise RequestError(
            f"`min_tokens` ({minimum}) exceeds the maximum number of output tokens ({max_tokens})",
            param="min_tokens",
        )
    return minimum


def check_token_ids(ids: Iterable[int], tokenizer: Tokenizer, param: str) -> None:
    """Raise `RequestError` for the first token id that is not in the vocabulary."""
    for token_id in ids:
        if token_id >= tokenizer.vocab_size:
            raise RequestError(
                f"`{param}`: token id {token_id} is not in the vocabulary of {tokenizer.vocab_size} tokens",
                param=param,
            )
