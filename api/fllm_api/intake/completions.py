"""Turn a completion request into a pipeline request."""

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
    resolve_sampling,
    stop_strings,
    tokenize_prompt,
)
from fllm_api.intake.unsupported_fields import reject_unsupported_fields
from fllm_api.protocol.completions import CompletionRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""
MAX_PROMPTS = 2048
"""Maximum number of prompts in one request. All of them are tokenized before any is admitted."""


class PreparedCompletion(Struct, frozen=True, kw_only=True):
    """A pipeline request, and the values that the response encoder needs."""

    request: PipelineRequest
    echoes: list[Echo]


def prepare_completion(body: CompletionRequest, server: AppState) -> PreparedCompletion:
    """Validate and tokenize a request. Raise `RequestError` if it is invalid.

    Slow for a long prompt: call it outside the event loop.
    """
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
        raise RequestError(
            "`max_tokens` is 0, which requires `echo`: true; otherwise the response would be empty",
            param="max_tokens",
        )
    n, best_of, beam = resolve_candidates(body)
    request = PipelineRequest(
        prompts=token_ids,
        sampling=resolve_sampling(
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


def _token_ids(prompt: str | list[int], server: AppState) -> list[int]:
    if isinstance(prompt, str):
        ids = tokenize_prompt(prompt, server, add_special_tokens=True, param="prompt") or _bos_ids(
            server.tokenizer
        )
    else:
        ids = prompt
        check_token_ids(ids, server.tokenizer, "prompt")
    if not ids:
        raise RequestError("`prompt` has no tokens; send at least one", param="prompt")
    return ids


def _bos_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the beginning-of-sequence token, which stands for an empty prompt, if the model has one."""
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
