"""``furiosa-llm cache``: list and clear what earlier starts have left in the cache directory."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import rich_click as click
from msgspec import Struct

from fllm.errors import ConfigError
from fllm.files import read_bounded
from fllm_backends.checkpoints.cache import remove
from fllm_backends.checkpoints.cache_directory import configured_directory

KINDS = {
    "gguf": "tokenizer and settings of a GGUF file",
    "tokenizers": "converted tokenizer",
    "kernels": "compiled kernels",
}
"""Directories of the cache, and what an entry there is."""
_MODEL_OF_BLOCKS = re.compile("[0-9a-f]{32}")
_MAX_DESCRIPTION_BYTES = 4096
_OLD_WEIGHTS = "float32 weights of an earlier version"


class CacheEntry(Struct, frozen=True):
    """One entry of the cache."""

    kind: str
    name: str
    content: str
    size: int
    """Bytes of its files."""
    path: str


@click.group("cache")
def cache() -> None:
    """List and clear extracted tokenizers and compiled kernels. Models of the Hub are in its own cache."""


_KV_CACHE_DIR = click.option(
    "--kv-cache-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="FURIOSA_LLM_KV_CACHE_DIR",
    help="Also the KV blocks in this directory of a server.",
)


@cache.command("list")
@_KV_CACHE_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(as_json: bool, kv_cache_dir: Path | None) -> None:
    """List the entries with their sizes."""
    entries = [*find_entries(), *find_kv_blocks(kv_cache_dir)]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries)))
        return
    for entry in entries:
        click.echo(f"{_text(entry.size):>10}  {entry.kind}/{entry.name}  ({entry.content})")
    places = [_root(), *([kv_cache_dir] if kv_cache_dir else [])]
    total = _text(sum(entry.size for entry in entries))
    click.echo(f"{total:>10}  in all, in {' and '.join(map(str, places))}")


@cache.command("clear")
@_KV_CACHE_DIR
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Remove all entries.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def clear(names: tuple[str, ...], everything: bool, yes: bool, kv_cache_dir: Path | None) -> None:
    """Remove entries, named as `cache list` prints them or by a part of that, such as a model's name.

    The next start creates again what it needs. Servers that run keep what they have loaded.
    """
    if bool(names) == everything:
        raise click.UsageError("pass the NAME of entries to remove, or --all")
    entries = [*find_entries(), *find_kv_blocks(kv_cache_dir)]
    for name in names:
        if not any(name in f"{entry.kind}/{entry.name}" for entry in entries):
            raise click.UsageError(f"the cache has no entry {name!r}; `furiosa-llm cache list` shows all")
    chosen = [e for e in entries if everything or any(name in f"{e.kind}/{e.name}" for name in names)]
    size = _text(sum(entry.size for entry in chosen))
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("pass --yes to remove entries without a question")
        click.confirm(f"Remove {len(chosen)} entries of {size}?", abort=True)
    for entry in chosen:
        try:
            (_remove_blocks if entry.kind == "kv" else remove)(Path(entry.path))
        except OSError as error:
            raise ConfigError(f"{entry.path} can't be removed: {error.strerror}") from error
    click.echo(f"removed {len(chosen)} entries of {size}")


def _remove_blocks(path: Path) -> None:
    """Remove the blocks of a model, also while servers write there. Raise `OSError`.

    Under its new name, which is that of no model, no server begins to write. What one has begun may still
    appear, once.
    """
    with suppress(FileNotFoundError):
        renamed = path.rename(path.with_name(secrets.token_hex(16)))
        shutil.rmtree(renamed, ignore_errors=True)
        if renamed.exists():
            remove(renamed)


def find_entries() -> Iterator[CacheEntry]:
    """Yield the entries of the cache. Links are entries; what they point to is not read.

    Raise `ConfigError` if a directory can't be read.
    """
    for kind, content in KINDS.items():
        parent = _root() / kind
        try:
            paths = sorted(parent.iterdir()) if parent.is_dir() and not parent.is_symlink() else []
            for path in paths:
                old = not path.is_symlink() and any(path.glob("*.safetensors"))
                yield CacheEntry(kind, path.name, _OLD_WEIGHTS if old else content, _size(path), str(path))
        except OSError as error:
            raise ConfigError(f"{parent} can't be read: {error.strerror}") from error


def find_kv_blocks(directory: Path | None) -> Iterator[CacheEntry]:
    """Yield an entry for each model with blocks in a ``--kv-cache-dir``. Raise `ConfigError`."""
    if directory is None:
        return
    try:
        for path in sorted(directory.iterdir()):
            if _MODEL_OF_BLOCKS.fullmatch(path.name) and not path.is_symlink():
                yield CacheEntry("kv", path.name, _describe_blocks(path), _size(path), str(path))
    except OSError as error:
        raise ConfigError(f"{directory} can't be read: {error.strerror}") from error


def _describe_blocks(path: Path) -> str:
    """Return the model that the description of blocks names, with the code that has computed them."""
    with suppress(OSError):
        text = read_bounded(path / "description.txt", _MAX_DESCRIPTION_BYTES).decode("utf-8", "replace")
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        known = [fields[name].strip("'") for name in ("name", "decoder", "dtype") if name in fields]
        return f"KV blocks: {' '.join(filter(str.isprintable, known))}"
    return "KV blocks"


def _size(path: Path) -> int:
    """Return the bytes of all files in a directory, without following links.

    A server may remove or rename some of them meanwhile.
    """
    with suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        return sum(_size(Path(entry.path)) for entry in os.scandir(path))
    return 0


def _root() -> Path:
    return configured_directory("gguf").parent


def _text(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
