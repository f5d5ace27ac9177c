"""Read the model card of a model directory: end tokens and sampling defaults."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec
from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm.files import read_bounded
from fllm.model.generation_config import sampling_defaults
from fllm.tokenizer import MAX_TOKENIZER_BYTES
from fllm.values import ModelCard, SamplingDefaults
from fllm_backends.checkpoints.json_files import convert, read_object
from fllm_backends.checkpoints.tokenizer_files.directory import has_tokenizer, tokenizer_directory

log = logging.getLogger("fllm.model")

TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]


class ModelFacts(Protocol):
    """What a card says of a model, whatever code computes it."""

    @property
    def name(self) -> str:
        """Name of its class."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    @property
    def max_positions(self) -> int:
        """Context length."""
        ...

    @property
    def long_context_start(self) -> int | None:
        """See `ModelCard.long_context_start`."""
        ...

    @property
    def recurrent(self) -> bool:
        """Whether layers keep a state for each sequence."""
        ...


class _EosTokens(Struct):
    """The key of ``config.json`` and ``generation_config.json`` with EOS tokens."""

    eos_token_id: TokenId | list[TokenId] | None = None


class _AddedToken(Struct):
    id: int
    content: str


class _TokenizerFile(Struct):
    """The part of ``tokenizer.json`` that is decoded; the file is large, and the rest is skipped."""

    added_tokens: list[_AddedToken] = []


def read_model_card(
    directory: Path, model: ModelFacts, artifact_id: str, runtime: dict[str, Any]
) -> ModelCard:
    """Return the card of the model in ``directory``; ``runtime`` is added to its runtime facts."""
    return ModelCard(
        tokenizer=str(tokenizer_directory(directory) if has_tokenizer(directory) else directory),
        max_model_len=model.max_positions,
        long_context_start=model.long_context_start,
        eos_token_ids=read_eos_token_ids(directory, model.vocab_size),
        defaults=read_sampling_defaults(directory),
        artifact_id=artifact_id,
        recurrent=model.recurrent,
        runtime={"architecture": model.name, "vocab_size": model.vocab_size, **runtime},
    )


def read_eos_token_ids(directory: Path, vocab_size: int) -> tuple[int, ...]:
    """Return the EOS token ids that any of three files names: those of Llama 3 and of Qwen disagree.

    An id beyond the vocabulary, which fine-tuning may leave in a file, is omitted with a warning. Raise
    `ModelError` if there are only such ids.
    """
    ids: list[int] = []
    beyond = ""
    for file in (directory / "generation_config.json", directory / "config.json"):
        found = _as_list(convert(read_object(file), _EosTokens, str(file)).eos_token_id)
        ids += (token for token in found if token < vocab_size)
        if wrong := [token for token in found if token >= vocab_size]:
            beyond = f"{file}: eos_token_id {wrong[0]} is beyond the vocabulary of {vocab_size}"
    eos = read_object(directory / "tokenizer_config.json").get("eos_token")
    content = eos.get("content") if isinstance(eos, dict) else eos
    added = [token.id for token in _added_tokens(directory / "tokenizer.json") if token.content == content]
    ids += (token for token in added if 0 <= token < vocab_size)
    if beyond and not ids:
        raise ModelError(beyond)
    if beyond:
        log.warning("%s; it is ignored", beyond)
    return tuple(dict.fromkeys(ids))


def _added_tokens(path: Path) -> list[_AddedToken]:
    if not path.exists():
        return []
    try:
        content = read_bounded(path, MAX_TOKENIZER_BYTES)
        return msgspec.json.decode(content, type=_TokenizerFile).added_tokens
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"{path} is invalid: {error}") from error


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def read_sampling_defaults(directory: Path) -> SamplingDefaults:
    """Return what ``generation_config.json`` recommends; no defaults if it disables sampling."""
    file = directory / "generation_config.json"
    return sampling_defaults(read_object(file), str(file))
