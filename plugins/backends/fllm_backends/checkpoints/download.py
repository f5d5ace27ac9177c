"""From MODEL to a directory in Hugging Face's layout: as it is, downloaded, or converted once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError
from urllib.request import urlopen

from msgspec import Struct

from fllm.errors import ModelError
from fllm.model import locate
from fllm.values import Progress
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.checkpoints.safetensors_files import check_files, weight_files
from fllm_backends.torch.options import Options

_SAMPLES, _SAMPLE = 64, 64 * 1024
_PATIENCE = 10.0
"""Seconds without a word from the Hub."""


class Model(Struct, frozen=True):
    """A model directory, and a name for these very weights."""

    directory: Path
    artifact_id: str


def check_local(options: Options) -> None:
    """Look at a model that is a directory, before torch takes seconds to import; raises `ModelError`."""
    if options.source.kind == "directory":
        directory = Path(options.source.location)
        read_architecture(directory)
        if not options.dummy:
            check_files(directory)


def fetch(options: Options, dtype: str, progress: Callable[[Progress], None]) -> Model:
    """Bring the model here; raises `ModelError`."""
    source = options.source
    if source.kind == "hub":
        progress(Progress(f"Downloading {source.location}", 0, 0))
        directory = _download(source.location, options.revision, weights=not options.dummy)
        return Model(directory, directory.name)  # a snapshot's directory is named after its commit
    if source.kind == "gguf":
        from fllm_backends.checkpoints.gguf.convert import converted

        file = Path(source.location)
        artifact_id = fingerprint([file])
        return Model(converted(file, artifact_id, dtype, progress), artifact_id)
    directory = Path(source.location)
    weights = [] if options.dummy else weight_files(directory)
    return Model(directory, fingerprint([directory / "config.json", *weights]))


def fetch_description(model: str, revision: str | None, progress: Callable[[Progress], None]) -> Model:
    """Bring the model's tokenizer and settings here, and not its weights; raises `ModelError`."""
    source = locate(model)
    if source.kind == "hub":
        progress(Progress(f"Downloading the tokenizer of {source.location}", 0, 0))
        directory = _download(source.location, revision, weights=False)
        return Model(directory, directory.name)
    if source.kind == "gguf":
        from fllm_backends.checkpoints.gguf.convert import described

        file = Path(source.location)
        artifact_id = fingerprint([file])
        return Model(described(file, artifact_id), artifact_id)
    directory = Path(source.location)
    return Model(directory, fingerprint([directory / "config.json"]))


def fingerprint(files: Iterable[Path]) -> str:
    """A digest of sizes and of evenly spaced samples, so that large files need not be read whole."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        try:
            with path.open("rb") as file:
                _digest(file, digest)
        except OSError as error:
            raise ModelError(f"{path} can't be read: {error.strerror}") from error
    return digest.hexdigest()


def _digest(file: BinaryIO, digest: hashlib.blake2b) -> None:
    size = file.seek(0, os.SEEK_END)
    digest.update(f"{size};".encode())
    for index in range(_SAMPLES):
        file.seek(max(size - _SAMPLE, 0) * index // (_SAMPLES - 1))
        digest.update(file.read(_SAMPLE))


def _download(model: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.jinja", *(["*.safetensors"] if weights else [])]
    place = f"{model!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        silent = _silent(model)
        found = snapshot_download(model, revision=revision, allow_patterns=patterns, local_files_only=silent)
        return Path(found)
    except hub.GatedRepoError as error:
        raise ModelError(f"{place} is gated: accept its terms on the Hub, and set HF_TOKEN") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(f"there is no {place} on the Hub, or it is private (set HF_TOKEN)") from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"there is no {place} on the Hub") from error
    except (hub.LocalEntryNotFoundError, hub.HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{place} is not on this machine, and the Hub can't be reached: {reason}") from error


def _silent(model: str) -> bool:
    """Whether the Hub takes a question and gives no answer, for which its own client waits without end."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(f"{constants.ENDPOINT}/api/models/{model}", timeout=_PATIENCE):
            return False
    except URLError as error:
        return isinstance(error.reason, TimeoutError)
    except OSError as error:
        return isinstance(error, TimeoutError)
