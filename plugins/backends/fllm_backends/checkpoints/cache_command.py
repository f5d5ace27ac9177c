"""``furiosa-llm cache``: list and clear what earlier starts have left in the cache directory."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import rich_click as click
from msgspec import Struct

from fllm.errors import ConfigError
from fllm_backends.checkpoints.cache import remove
from fllm_backends.checkpoints.cache_directory import configured_directory

KINDS = {
    "gguf": "tokenizer and settings of a GGUF file",
    "tokenizers": "converted tokenizer",
    "kernels": "compiled kernels",
}
"""Directories of the cache, and what an entry there is."""
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


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(as_json: bool) -> None:
    """List the entries with their sizes."""
    entries = list(find_entries())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries)))
        return
    for entry in entries:
        click.echo(f"{_text(entry.size):>10}  {entry.kind}/{entry.name}  ({entry.content})")
    click.echo(f"{_text(sum(entry.size for entry in entries)):>10}  in all, in {_root()}")


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Remove all entries.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def clear(names: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Remove entries, named as `cache list` prints them or by a part of that, such as a model's name.

    The next start creates again what it needs. Servers that run keep what they have loaded.
    """
    if bool(names) == everything:
        raise click.UsageError("pass the NAME of entries to remove, or --all")
    entries = list(find_entries())
    for name in names:
        if not any(name in f"{entry.kind}/{entry.name}" for entry in entries):
            raise click.UsageError(f"the cache has no entry {name!r}; `furiosa-llm cache list` shows all")
    chosen = [e for e in entries if everything or any(name in f"{e.kind}/{e.name}" for name in names)]
    size = _text(sum(entry.size for entry in chosen))
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("pass --yes to remove entries without a question")
        click.confirm(f"Remove {len(chosen)} entries of {size} from {_root()}?", abort=True)
    for entry in chosen:
        try:
            remove(Path(entry.path))
        except OSError as error:
            raise ConfigError(f"{entry.path} can't be removed: {error.strerror}") from error
    click.echo(f"removed {len(chosen)} entries of {size}")


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


def _size(path: Path) -> int:
    """Return the bytes of all files in a directory, without following links."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    return sum(_size(Path(entry.path)) for entry in os.scandir(path))


def _root() -> Path:
    return configured_directory("gguf").parent


def _text(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
