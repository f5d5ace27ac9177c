"""Turn MODEL into a local directory in Hugging Face's layout: unchanged, downloaded, or converted."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from msgspec import Struct

from fllm.errors import ModelError
from fllm.extras import require_extra
from fllm.model import ModelSource, locate
from fllm.values import Progress
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.checkpoints.fingerprint import fingerprint
from fllm_backends.checkpoints.gguf.hub_files import choose_files, may_hold_gguf
from fllm_backends.checkpoints.quantized.config import read_quantization
from fllm_backends.checkpoints.quantized.stored_weights import read_stored_weights
from fllm_backends.checkpoints.safetensors_files import INDEX, SINGLE_FILE, weight_files
from fllm_backends.checkpoints.tokenizer_files.directory import check_tokenizer

_SETTINGS = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
"""Patterns of the files that are downloaded first: all but the weights."""
_HUB_TIMEOUT_SECONDS = 10.0
NEEDS_EXTRA = "reading a GGUF file needs the extra 'torch'"
"""Beginning of the error message if the extra is not installed."""


class LocalModel(Struct, frozen=True):
    """A model directory and an identifier of its content."""

    directory: Path
    artifact_id: str
    """Commit of a Hub snapshot, else a fingerprint of the files."""
    gguf: Path | None = None
    """The file with the weights, of which the directory has only the tokenizer and the settings."""


Check: TypeAlias = Callable[[Path], object]
"""Checks a model directory without its weights. Raises `UserError`."""


def check_config(directory: Path) -> None:
    """Check the class and the quantization of a model by its configuration. Raise `ModelError`."""
    read_architecture(directory)
    read_quantization(directory)


def check_local_model(source: ModelSource, *, weights: bool, check: Check = check_config) -> None:
    """Check a model that is a directory or a GGUF file, before torch is imported. Raise `ModelError`.

    ``weights=False`` checks the configuration only.
    """
    if source.kind == "directory":
        directory = Path(source.location)
        check(directory)
        check_tokenizer(directory)
        if weights:
            check_weights(directory)
    elif source.kind == "gguf":
        require_extra("torch", NEEDS_EXTRA)

        from fllm_backends.checkpoints.gguf.extract import check_keys
        from fllm_backends.checkpoints.gguf.metadata import Metadata

        check_keys(Metadata(Path(source.location)))


def check_weights(directory: Path) -> None:
    """Check the headers of the weights, which tell how each is quantized. Raise `ModelError`."""
    read_stored_weights(directory)


def count_values(directory: Path) -> int:
    """Return how many values the weights have, once they are dequantized. Raise `ModelError`."""
    weights, headers = read_stored_weights(directory)
    return sum(weight.count_values(headers) for weight in weights.values())


def fetch_model(
    source: ModelSource,
    *,
    revision: str | None,
    weights: bool,
    progress: Callable[[Progress], None],
    check: Check = check_config,
) -> LocalModel:
    """Download the model if necessary. Raise `ModelError`.

    ``check`` is called before weights are downloaded or read. The weights of a GGUF file stay there.
    ``weights=False`` neither downloads nor reads safetensors files.
    """
    if source.kind == "hub":
        progress(Progress(f"Downloading {source.location}", 0, 0))
        if may_hold_gguf(source.location):
            return _extract_gguf(_download_gguf(source.location, revision), check)
        directory = _download(source.location, revision, _SETTINGS)
        locate(str(directory))
        check(directory)
        check_tokenizer(directory)
        if weights:
            directory = _download(source.location, revision, [*_SETTINGS, *_weight_patterns(directory)])
        return LocalModel(directory, directory.name)  # the directory of a snapshot is named after its commit
    if source.kind == "gguf":
        return _extract_gguf(Path(source.location), check)
    directory = Path(source.location)
    check(directory)
    files = weight_files(directory) if weights else []
    return LocalModel(directory, fingerprint([directory / "config.json", *files]))


def fetch_tokenizer_files(
    model: str, revision: str | None, progress: Callable[[Progress], None]
) -> LocalModel:
    """Download or extract the tokenizer and the settings of a model, not its weights. Raise `ModelError`."""
    source = locate(model)
    if source.kind == "hub":
        progress(Progress(f"Downloading the tokenizer of {source.location}", 0, 0))
        if may_hold_gguf(source.location):
            return _extract_gguf(_download_gguf(source.location, revision))
        directory = _download(source.location, revision, _SETTINGS)
        return LocalModel(directory, directory.name)
    if source.kind == "gguf":
        return _extract_gguf(Path(source.location))
    directory = Path(source.location)
    return LocalModel(directory, fingerprint([directory / "config.json"]))


def model_directory(model: str, revision: str | None) -> Path:
    """Return the directory of `fetch_tokenizer_files`: what `fllm.model.model_directory` calls."""
    return fetch_tokenizer_files(model, revision, lambda _: None).directory


def _extract_gguf(file: Path, check: Check | None = None) -> LocalModel:
    require_extra("torch", NEEDS_EXTRA)

    from fllm_backends.checkpoints.gguf.extract import check_keys, extract_once
    from fllm_backends.checkpoints.gguf.metadata import Metadata

    metadata = Metadata(file)
    artifact_id = fingerprint(metadata.files)
    if check:
        check_keys(metadata)
    directory = extract_once(metadata, artifact_id)
    if check:
        check(directory)
    return LocalModel(directory, artifact_id, metadata.files[0])


def _weight_patterns(directory: Path) -> list[str]:
    """Return the names of the weight files to download: those of the index, or all that transformers writes.

    Others hold the same weights in another layout, such as Mistral's ``consolidated.safetensors``.
    """
    modules = f"[0-9]*_*/{SINGLE_FILE}"  # of Sentence Transformers
    if (directory / INDEX).is_file():
        return [*(file.name for file in weight_files(directory)), modules]
    return [SINGLE_FILE, "model-*-of-*.safetensors", modules]


def _download_gguf(model: str, revision: str | None) -> Path:
    """Download the GGUF files of one quantization, and return the first of them."""
    repository, _, name = model.partition(":")
    files = choose_files(repository, _list_files(repository, revision), name)
    return _download(repository, revision, files) / files[0]


def _list_files(repository: str, revision: str | None) -> list[str]:
    """Return the names of a repository's files; those on this machine if the Hub can't be reached."""
    from huggingface_hub import HfApi, constants, snapshot_download

    with _hub_errors(repository, revision):
        if not constants.HF_HUB_OFFLINE and not _hub_is_unreachable(repository):
            return HfApi().list_repo_files(repository, revision=revision)
        # Without patterns, a snapshot that lacks files of the repository is an error.
        local = Path(
            snapshot_download(repository, revision=revision, allow_patterns=["*.none"], local_files_only=True)
        )
        return [str(file.relative_to(local)) for file in local.rglob("*")]


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(model, revision):
        offline = _hub_is_unreachable(model)
        directory = snapshot_download(
            model, revision=revision, allow_patterns=patterns, local_files_only=offline
        )
        return Path(directory)


@contextmanager
def _hub_errors(model: str, revision: str | None) -> Generator[None]:
    """Raise `ModelError` for an error of the Hub."""
    from huggingface_hub import errors as hub

    description = f"{model!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        yield
    except hub.GatedRepoError as error:
        raise ModelError(f"{description} is gated: accept its terms on the Hub and set HF_TOKEN") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"{description} does not exist on the Hub, or it is private (set HF_TOKEN)"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"{description} does not exist on the Hub") from error
    except (hub.LocalEntryNotFoundError, hub.HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{description} is not on this machine, and the Hub can't be reached: {reason}"
        ) from error


def _hub_is_unreachable(model: str) -> bool:
    """Return whether the Hub does not respond; its client would wait forever, or try again for 25 seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(f"{constants.ENDPOINT}/api/models/{model}", timeout=_HUB_TIMEOUT_SECONDS):
            return False
    except HTTPError:
        return False
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        return not isinstance(reason, ssl.SSLError)  # the client has certificates of its own
