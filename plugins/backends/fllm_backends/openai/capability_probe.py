"""Finding out what the server behind is: its model, its dialect, what it takes and gives."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fllm import BackendError, BackendUnavailable, ModelError, RequestError, UserError
from fllm.errors import ConfigError
from fllm.tokenizer import Tokenizer
from fllm_backends.openai.client import Client
from fllm_backends.openai.options import OpenAIOptions
from fllm_backends.openai.request_builder import ASK_IDS, Manner, Tokens, as_text
from fllm_backends.openai.response_reader import TOKEN, Choice, read_chunk
from fllm_backends.openai.server_dialect import DIALECTS, OWNERS, Dialect


class _Meta(Struct, frozen=True):
    n_ctx: int | None = None


class ServedModel(Struct, frozen=True):
    """An entry of a server's list of models."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    artifact_id: str = ""
    meta: _Meta | None = None
    """llama.cpp's."""

    def context_length(self) -> int | None:
        """Tokens of prompt and answer, where the server says it."""
        return self.max_model_len or (self.meta.n_ctx if self.meta else None)


class _Models(Struct, frozen=True):
    data: list[ServedModel]


async def served_model(client: Client, options: OpenAIOptions, name: str) -> ServedModel:
    """The model to ask for: as the option says, the only one, or that of this name; raises `UserError`."""
    served = {model.id: model for model in await _models(client)}
    if options.model is not None or len(served) != 1:
        chosen = options.model or name
        if chosen not in served:
            known = ", ".join(served) or "none"
            raise ConfigError(f"--backend-option model=...: {client.url} serves {known}, and no {chosen!r}")
        return served[chosen]
    return next(iter(served.values()))


async def _models(client: Client) -> list[ServedModel]:
    try:
        page = await client.page(f"{client.url}/models")
        return msgspec.json.decode(page, type=_Models).data
    except msgspec.DecodeError as error:
        raise UserError(
            f"{client.url}/models is no list of models ({error}): is that the right url?"
        ) from error
    except (BackendError, RequestError) as error:
        raise UserError(
            f"--backend-option url={client.url}: {error.message}{_hint(client.url, error)}"
        ) from error


def _hint(url: str, error: Exception) -> str:
    answers = not isinstance(error, BackendUnavailable)
    return "; a base URL ends with /v1, as a rule" if answers and not url.endswith("/v1") else ""


async def manner_of(
    client: Client, options: OpenAIOptions, model: ServedModel, tokenizer: Tokenizer
) -> Manner:
    """Have the server generate one token, and look at what it took and gave; raises `UserError`."""
    kind = OWNERS.get(model.owned_by, "openai") if options.server == "auto" else options.server
    dialect = DIALECTS[kind]
    refusal = ""
    for send in ("ids", "text") if options.send == "auto" else (options.send,):
        manner = Manner(model=model.id, dialect=dialect, send=send, receive="text")
        try:
            receive = await _probe(client, manner, tokenizer, ask_ids=_asks_ids(dialect, options))
        except RequestError as error:
            refusal = error.message
        except BackendError as error:
            raise UserError(f"{client.url} can't complete a prompt: {error.message}") from error
        else:
            if options.receive == "ids" and receive == "text":
                raise ConfigError("--backend-option receive=ids: the server behind answers with text alone")
            return msgspec.structs.replace(manner, receive=receive)
    raise UserError(f"{client.url} refuses to complete a prompt: {refusal}")


def _asks_ids(dialect: Dialect, options: OpenAIOptions) -> bool:
    return options.receive == "ids" or (options.receive == "auto" and dialect.gives_ids)


async def _probe(client: Client, manner: Manner, tokenizer: Tokenizer, *, ask_ids: bool) -> Tokens:
    ids = tokenizer.encode("Hello", add_special_tokens=True)
    asked = {
        "model": manner.model,
        "prompt": ids if manner.send == "ids" else as_text(ids, tokenizer),
        "max_tokens": 1,
        "temperature": 0,
        "stream": True,
        **(ASK_IDS["token_ids"] | ASK_IDS["logprobs"] if ask_ids else {}),
    }
    choices: list[Choice] = []
    async for events in client.events("/completions", msgspec.json.encode(asked), "probe"):
        choices += [choice for event in events for choice in read_chunk(event).choices]
    if not choices:
        raise BackendError("it answers without a choice")
    return _tokens(choices) if ask_ids else "text"


def _tokens(choices: list[Choice]) -> Tokens:
    if any(choice.token_ids for choice in choices):
        return "token_ids"
    names = [name for choice in choices if choice.logprobs for name in choice.logprobs.tokens]
    return "logprobs" if names and all(name.startswith(TOKEN) for name in names) else "text"


def context_length(model: ServedModel, own: int | None, asked: int | None) -> int:
    """Tokens of prompt and answer: what the server has, or the model; raises `UserError`."""
    known = model.context_length() or own
    if asked is not None:
        if known is not None and asked > known:
            raise ConfigError(f"--max-model-len {asked}: the server behind has {known}")
        return asked
    if known is None:
        raise ModelError(
            "neither the server behind nor the model's files say the context length: --max-model-len"
        )
    return known
