"""Detect the upstream server's model, its dialect, and the formats that it accepts and returns."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fllm import BackendError, BackendUnavailable, ModelError, RequestError, UserError
from fllm.errors import ConfigError
from fllm.tokenizer import Tokenizer
from fllm_backends.openai.client import Client
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.openai.request_builder import TOKEN_ID_FIELDS, TokenSource, UpstreamProfile, prompt_text
from fllm_backends.openai.response_reader import TOKEN_ID_PREFIX, Choice, parse_chunk
from fllm_backends.openai.server_dialect import DIALECT_BY_OWNER, DIALECTS, Dialect


class _Meta(Struct, frozen=True):
    n_ctx: int | None = None


class ServedModel(Struct, frozen=True):
    """A model in a server's list of models."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    artifact_id: str = ""
    meta: _Meta | None = None
    """Sent by llama.cpp."""

    def context_length(self) -> int | None:
        """Return the maximum length of prompt and output in tokens, if the server reports it."""
        return self.max_model_len or (self.meta.n_ctx if self.meta else None)


class _Models(Struct, frozen=True):
    data: list[ServedModel]


async def served_model(client: Client, options: OpenAIOptions, name: str) -> ServedModel:
    """Return the model of the option, or the only one, or that with ``name``; raise `UserError`."""
    served = {model.id: model for model in await _models(client)}
    if options.model is not None or len(served) != 1:
        chosen = options.model or name
        if chosen not in served:
            known = ", ".join(served) or "none"
            raise ConfigError(f"--backend-option model=...: {client.url} serves {known}, but not {chosen!r}")
        return served[chosen]
    return next(iter(served.values()))


async def _models(client: Client) -> list[ServedModel]:
    try:
        page = await client.page(f"{client.url}/models")
        return msgspec.json.decode(page, type=_Models).data
    except msgspec.DecodeError as error:
        raise UserError(f"{client.url}/models is not a list of models ({error}): check the url") from error
    except (BackendError, RequestError) as error:
        raise UserError(
            f"--backend-option url={client.url}: {error.message}{_hint(client.url, error)}"
        ) from error


def _hint(url: str, error: Exception) -> str:
    responded = not isinstance(error, BackendUnavailable)
    return "; a base URL usually ends with /v1" if responded and not url.endswith("/v1") else ""


async def probe_upstream(
    client: Client, options: OpenAIOptions, model: ServedModel, tokenizer: Tokenizer
) -> UpstreamProfile:
    """Let the server generate one token, and detect what it accepts and returns; raise `UserError`."""
    kind = DIALECT_BY_OWNER.get(model.owned_by, "openai") if options.server == "auto" else options.server
    dialect = DIALECTS[kind]
    rejection = ""
    for send in ("ids", "text") if options.send == "auto" else (options.send,):
        profile = UpstreamProfile(model=model.id, dialect=dialect, send=send, receive="text")
        try:
            receive = await _probe(client, profile, tokenizer, request_ids=_requests_ids(dialect, options))
        except RequestError as error:
            rejection = error.message
        except BackendError as error:
            raise UserError(f"{client.url} can't complete a prompt: {error.message}") from error
        else:
            if options.receive == "ids" and receive == "text":
                raise ConfigError("--backend-option receive=ids: the upstream server returns only text")
            return msgspec.structs.replace(profile, receive=receive)
    raise UserError(f"{client.url} rejects a completion request: {rejection}")


def _requests_ids(dialect: Dialect, options: OpenAIOptions) -> bool:
    return options.receive == "ids" or (options.receive == "auto" and dialect.returns_token_ids)


async def _probe(
    client: Client, profile: UpstreamProfile, tokenizer: Tokenizer, *, request_ids: bool
) -> TokenSource:
    ids = tokenizer.encode("Hello", add_special_tokens=True)
    body = {
        "model": profile.model,
        "prompt": ids if profile.send == "ids" else prompt_text(ids, tokenizer),
        "max_tokens": 1,
        "temperature": 0,
        "stream": True,
        **(TOKEN_ID_FIELDS["token_ids"] | TOKEN_ID_FIELDS["logprobs"] if request_ids else {}),
    }
    choices: list[Choice] = []
    async for events in client.events("/completions", msgspec.json.encode(body), "probe"):
        choices += [choice for event in events for choice in parse_chunk(event).choices]
    if not choices:
        raise BackendError("the response has no choices")
    return _token_source(choices) if request_ids else "text"


def _token_source(choices: list[Choice]) -> TokenSource:
    if any(choice.token_ids for choice in choices):
        return "token_ids"
    names = [name for choice in choices if choice.logprobs for name in choice.logprobs.tokens]
    return "logprobs" if names and all(name.startswith(TOKEN_ID_PREFIX) for name in names) else "text"


def context_length(model: ServedModel, max_positions: int | None, max_model_len: int | None) -> int:
    """Return the maximum length of prompt and output in tokens: of the option, the server or the model.

    Raise `UserError` if the option is too large, or the length is unknown.
    """
    known = model.context_length() or max_positions
    if max_model_len is not None:
        if known is not None and max_model_len > known:
            raise ConfigError(f"--max-model-len {max_model_len}: the upstream server has only {known}")
        return max_model_len
    if known is None:
        raise ModelError(
            "neither the upstream server nor the model's files give the context length: set --max-model-len"
        )
    return known
