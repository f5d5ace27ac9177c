"""A completion request, ready for the pipeline."""

from __future__ import annotations

from typing import cast

from msgspec import Struct

from fllm.errors import RequestError
from fllm.pipeline.detokenizer import Detokenizer
from fllm.pipeline.pipeline import PipelineRequest
from fllm.tokenizer import Tokenizer
from fllm_api.app_state import AppState
from fllm_api.encoding.completions import Echo
from fllm_api.intake.constraints import read_output_constraint
from fllm_api.intake.sampling import (
    check_stream_options,
    check_token_ids,
    first_set,
    resolve_candidates,
    resolve_max_tokens,
    sampling,
    stop_strings,
    tokenize_prompt,
)
from fllm_api.intake.unsupported_fields import reject_unsupported_fields
from fllm_api.protocol.completions import CompletionRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_PROMPTS = 2048
"""In one request, whatever the server holds: all are tokenized before any is admitted."""


class PreparedCompletion(Struct, frozen=True, kw_only=True):
    """What the pipeline is asked, and what the encoder must know of the request."""

    request: PipelineRequest
    echoes: list[Echo]


def prepare_completion(body: CompletionRequest, server: AppState) -> PreparedCompletion:
    """Check and tokenize; raises `RequestError`. Slow for a long prompt: not for the event loop."""
    reject_unsupported_fields(body)
    check_stream_options(body)
    tokenizer = server.tokenizer
    prompts = split_prompts(body.prompt)
    token_ids = [_token_ids(prompt, server) for prompt in prompts]
    echo, skip_special_tokens = bool(body.echo), body.skip_special_tokens is not False
    default = first_set(server.card.defaults.max_tokens, default=DEFAULT_MAX_TOKENS)
    max_tokens = resolve_max_tokens(
        server.card, max(map(len, token_ids)), body.max_tokens, default, param="prompt"
    )
    if max_tokens == 0 and not echo:
        raise RequestError("`max_tokens` 0 needs `echo`: there would be no answer", param="max_tokens")
    n, best_of, beam = resolve_candidates(body)
    request = PipelineRequest(
        prompts=token_ids,
        sampling=sampling(
            body,
            server.card,
            tokenizer,
            max_tokens=max_tokens,
            logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if echo else None,
        ),
        n=n,
        best_of=best_of,
        beam=beam,
        stop=stop_strings(body),
        include_stop=bool(body.include_stop_str_in_output),
        skip_special_tokens=skip_special_tokens,
        continues_prompt=True,
        output_constraint=read_output_constraint(body, server.card),
    )
    pairs = zip(prompts, token_ids, strict=True)
    echoes = [
        _echo(prompt, ids, tokenizer, skip_special_tokens=skip_special_tokens)
        for prompt, ids in pairs
        if echo
    ]
    return PreparedCompletion(request=request, echoes=echoes)


def split_prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Each prompt by itself, whichever of OpenAI's four forms they came in."""
    if isinstance(prompt, str):
        return [prompt]
    kinds = {type(item) for item in prompt}
    if kinds == {int}:
        return [cast("list[int]", prompt)]
    if len(prompt) > MAX_PROMPTS:
        raise RequestError(f"`prompt` has {len(prompt)} prompts; {MAX_PROMPTS} is the limit", param="prompt")
    if kinds in ({str}, {list}):
        return cast("list[str | list[int]]", prompt)
    what = "mixes texts and token ids" if kinds else "is empty"
    raise RequestError(
        f"`prompt` {what}; it is a text, a list of texts, a list of token ids, or a list of such lists",
        param="prompt",
    )


def _token_ids(prompt: str | list[int], server: AppState) -> list[int]:
    if isinstance(prompt, str):
        ids = tokenize_prompt(prompt, server, add_special_tokens=True, param="prompt") or _bos_ids(
            server.tokenizer
        )
    else:
        ids = prompt
        check_token_ids(ids, server.tokenizer, "prompt")
    if not ids:
        raise RequestError("`prompt` has no tokens, so there is nothing to continue", param="prompt")
    return ids


def _bos_ids(tokenizer: Tokenizer) -> list[int]:
    """What an empty text is to a model that knows how a text begins."""
    bos = tokenizer.token_to_id(tokenizer.bos_token) if tokenizer.bos_token else None
    return [] if bos is None else [bos]


def _echo(
    prompt: str | list[int], ids: list[int], tokenizer: Tokenizer, *, skip_special_tokens: bool
) -> Echo:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
    offsets, text = [], ""
    for token_id in ids:
        offsets.append(len(text))
        text += detokenizer.feed(token_id)
    text += detokenizer.finish()
    return Echo(prompt if isinstance(prompt, str) else text, ids, offsets)
