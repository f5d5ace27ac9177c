"""Turn a completion request into a pipeline request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from msgspec import Struct

from fllm.concurrency.turn_executor import Pieces
from fllm.control_tokens import escape_marks
from fllm.errors import RequestError
from fllm.pipeline.detokenizer import Detokenizer
from fllm.pipeline.pipeline import PipelineRequest
from fllm.requests.completions import CompletionRequest
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.app_state import AppState
from fllm_api.encoding.completions import Echo
from fllm_api.intake.constraints import read_output_constraint
from fllm_api.intake.fill_in_middle import FillInMiddle, require_fill_in_middle
from fllm_api.intake.prefix_cache import count_shared_tokens
from fllm_api.intake.response_size import (
    check_echo,
    check_prompt_token_ids,
    count_alternatives,
    count_prompt_logprobs,
    logprob_bound,
)
from fllm_api.intake.sampling import (
    check_fields,
    check_sequences,
    check_token_ids,
    first_set,
    requested_max_tokens,
    resolve_candidates,
    resolve_max_tokens,
    resolve_sampling,
    stop_strings,
)
from fllm_api.intake.tokenization import (
    Truncation,
    check_text_length,
    detokenize_prompt,
    read_truncation,
    tokenize_prompt,
)
from fllm_api.intake.unsupported_fields import reject_unsupported_fields
from fllm_api.limits.admission import max_sequences

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""
MAX_PROMPTS = 2048
"""Maximum number of prompts in one request."""


class PreparedCompletion(Struct, frozen=True, kw_only=True):
    """A pipeline request, and the values that the response encoder needs."""

    request: PipelineRequest
    echoes: list[Echo]


def prepare_completion(body: CompletionRequest, server: AppState) -> Pieces[PreparedCompletion]:
    """Validate and tokenize a request. Raise `RequestError` if it is invalid."""
    reject_unsupported_fields(body)
    check_fields(body, server)
    adapter = server.adapters.find(body.model)
    tokenizer, card = server.tokenizer, server.card
    prompts = split_prompts(body.prompt)
    n, best_of, beam = resolve_candidates(body)
    check_sequences(len(prompts), n, best_of, beam, max_sequences(card, server.config))
    stop, output_constraint = stop_strings(body), read_output_constraint(body, card)
    requested = requested_max_tokens(card, body.max_tokens)
    default = first_set(card.defaults.max_tokens, default=DEFAULT_MAX_TOKENS)
    truncation = read_truncation(body, card, first_set(requested, default=default))
    for prompt in prompts:
        if isinstance(prompt, str) and truncation is None:
            check_text_length(prompt, tokenizer, card, "prompt")
    echo, skip_special_tokens = bool(body.echo), body.skip_special_tokens is not False
    middle = _fill_in_middle(body, tokenizer, card)
    if body.max_tokens == 0 and not echo and body.prompt_logprobs is None:
        raise RequestError(
            "`max_tokens` is 0, which requires `echo`: true or `prompt_logprobs`; otherwise the response "
            "would be empty",
            param="max_tokens",
        )
    alternatives = count_alternatives(body, body.logprobs)
    bound = logprob_bound(
        alternatives, len(prompts), n, best_of, beam, server.config.max_logprob_entries, "logprobs"
    )
    if requested is not None and requested < card.max_model_len:
        bound.limit_max_tokens(requested)
    yield 0
    maxima: list[int] = []
    token_ids: list[list[int]] = [[] for _ in prompts]
    suffix_ids = [] if middle is None else (yield from _suffix_ids(body.suffix or "", middle, server))
    # The longest first: if a prompt does not fit, the others are not tokenized.
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True):
        if middle is None:
            ids = yield from _token_ids(prompts[i], body, truncation, server)
        else:
            ids = yield from _prefix_ids(prompts[i], middle, server)
            special = body.add_special_tokens is not False
            ids = middle.prompt(ids, suffix_ids, tokenizer.encode("", add_special_tokens=special))
        token_ids[i] = ids
        maxima.append(resolve_max_tokens(card, len(ids), requested, default, param="prompt"))
    # The backend ends each output at the end of the context; beam search needs a maximum that always fits.
    max_tokens = min(maxima) if beam else max(maxima)
    prompt_tokens = sum(map(len, token_ids)) * max(n, best_of)
    if body.return_token_ids:
        check_prompt_token_ids(prompt_tokens)
    max_tokens = bound.limit_max_tokens(
        max_tokens,
        echoed=prompt_tokens if echo else 0,
        prompt_entries=count_prompt_logprobs(body, prompt_tokens),
        reducible=max_tokens != requested,
    )
    request = PipelineRequest(
        prompts=token_ids,
        sampling=resolve_sampling(
            body,
            server,
            max_tokens=max_tokens,
            logprobs=body.logprobs,
            echoed_logprobs=body.logprobs if echo else None,
            stop_token_ids=() if middle is None or body.ignore_eos else middle.stop_token_ids,
        ),
        n=n,
        best_of=best_of,
        beam=beam,
        stop=stop,
        include_stop=bool(body.include_stop_str_in_output),
        skip_special_tokens=skip_special_tokens,
        continues_prompt=True,
        priority=body.priority or 0,
        cache_salt=body.cache_salt or "",
        adapter=adapter,
        shared_tokens=count_shared_tokens(token_ids, server),
        output_constraint=output_constraint,
    )
    if truncation is not None:
        prompts = [*token_ids]
    echoes = (yield from _echoes(prompts, request, server)) if echo else []
    return PreparedCompletion(request=request, echoes=echoes)


def _echoes(
    prompts: Sequence[str | list[int]], request: PipelineRequest, server: AppState
) -> Pieces[list[Echo]]:
    """Return the prompts as they are repeated. Raise `RequestError` if they are too long together."""
    echoes: list[Echo] = []
    characters = 0
    for prompt, ids in zip(prompts, request.prompts, strict=True):
        # A text is repeated as it was sent, with its special tokens, but without those before it.
        skip = request.skip_special_tokens and not isinstance(prompt, str)
        detokenizer = Detokenizer(server.tokenizer, skip_special_tokens=skip)
        text, offsets = yield from detokenize_prompt(ids, detokenizer)
        if isinstance(prompt, str):
            added = len(text) - len(prompt) if text.endswith(prompt) else 0
            text, offsets = prompt, [max(offset - added, 0) for offset in offsets]
        echoes.append(Echo(text, ids, offsets))
        characters += request.n * len(echoes[-1].text)
        check_echo(characters)
    return echoes


def split_prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Return the prompts of a request as a list. Accepts OpenAI's four forms."""
    if isinstance(prompt, str):
        return [prompt]
    kinds = {type(item) for item in prompt}
    if kinds == {int}:
        return [cast("list[int]", prompt)]
    if len(prompt) > MAX_PROMPTS:
        raise RequestError(
            f"`prompt` has {len(prompt)} prompts; the maximum is {MAX_PROMPTS}", param="prompt"
        )
    if kinds in ({str}, {list}):
        return cast("list[str | list[int]]", prompt)
    what = "mixes strings and token ids" if kinds else "is empty"
    raise RequestError(
        f"`prompt` {what}; send a string, a list of strings, a list of token ids, "
        "or a list of lists of token ids",
        param="prompt",
    )


def _token_ids(
    prompt: str | list[int], body: CompletionRequest, truncation: Truncation | None, server: AppState
) -> Pieces[list[int]]:
    tokenizer = server.tokenizer
    if isinstance(prompt, str):
        special = body.add_special_tokens is not False
        ids = yield from tokenize_prompt(
            escape_marks(prompt),
            tokenizer,
            server.card,
            add_special_tokens=special,
            truncation=truncation,
            param="prompt",
        )
        ids = ids or (_bos_ids(tokenizer) if special else [])
    else:
        ids = prompt if truncation is None else truncation.keep(prompt)
        check_token_ids(ids, tokenizer, "prompt")
        yield len(ids)
    if not ids:
        raise RequestError("`prompt` has no tokens; send at least one", param="prompt")
    return ids


def _fill_in_middle(body: CompletionRequest, tokenizer: Tokenizer, card: ModelCard) -> FillInMiddle | None:
    """Return how prompts with a suffix are written, or ``None`` without one."""
    if not body.suffix:
        return None
    middle = require_fill_in_middle(tokenizer)
    for name in ("echo", "truncate_prompt_tokens"):
        if getattr(body, name):
            raise RequestError(f"`{name}` can't be combined with `suffix`", param=name)
    check_text_length(body.suffix, tokenizer, card, "suffix")
    return middle


def _prefix_ids(prompt: str | list[int], middle: FillInMiddle, server: AppState) -> Pieces[list[int]]:
    """Return the tokens of the text before the middle, in which control tokens are text."""
    tokenizer, card = server.tokenizer, server.card
    if not isinstance(prompt, str):
        check_token_ids(prompt, tokenizer, "prompt")
        return prompt
    text = middle.escaper.escape(prompt)
    return (yield from tokenize_prompt(text, tokenizer, card, add_special_tokens=False, param="prompt"))


def _suffix_ids(suffix: str, middle: FillInMiddle, server: AppState) -> Pieces[list[int]]:
    tokenizer, card = server.tokenizer, server.card
    text, anchor = middle.suffix_text(suffix, tokenizer)
    ids = yield from tokenize_prompt(text, tokenizer, card, add_special_tokens=False, param="suffix")
    resolve_max_tokens(card, len(ids), None, None, param="suffix")
    return ids[anchor:]


def _bos_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the beginning-of-sequence token, which stands for an empty prompt, if the model has one."""
    bos = tokenizer.token_to_id(tokenizer.bos_token) if tokenizer.bos_token else None
    return [] if bos is None else [bos]
