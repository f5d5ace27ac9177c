"""The files of KV blocks: one for each block, complete or absent, and checked whenever it is read."""

from __future__ import annotations

import itertools
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from fllm.batching.runner import KVFormat

MAGIC = b"furiosa-llm KV block, version 1\n"
DESCRIPTION = "description.txt"
"""File in the directory of a model that says which blocks these are."""
TEMPORARY_SUFFIX = ".tmp"
_HASH_BYTES = 32
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class BlockFiles:
    """Reads and writes the files of one model's blocks. Any thread may call it.

    A file has a header, a checksum and the data. The header names the format of the block and its key, so
    that the whole header is known before the file is read: another one is a miss. The key is a keyed hash of
    the block's hash. It reveals neither the tokens nor a salt.
    """

    def __init__(self, root: Path, kv_format: KVFormat) -> None:
        fields = {**kv_format.identity, "block_bytes": str(kv_format.block_bytes)}
        lines = "".join(f"{name}: {value!r}\n" for name, value in sorted(fields.items()))
        self._description = MAGIC + lines.encode() + b"\n"
        self._digest = blake2b(self._description, digest_size=_HASH_BYTES).digest()
        self._name = f"name: {kv_format.name!r}\n".encode()
        self._root = root
        self._folder = self._digest.hex()[:32]
        """Directory of the model, in the root."""
        self._data_start = len(self._description) + 2 * _HASH_BYTES
        self.file_size = self._data_start + kv_format.block_bytes
        # Processes of several containers may have the same id.
        self._temporary = f".{secrets.token_hex(8)}-{{}}{TEMPORARY_SUFFIX}".format
        self._numbers = itertools.count()

    def name(self, block_hash: bytes) -> str:
        """Return the path of a block's file, relative to the root."""
        key = blake2b(block_hash, key=self._digest, digest_size=_HASH_BYTES).hexdigest()
        return f"{self._folder}/{key[:2]}/{key[2:]}"

    def read(self, name: str) -> memoryview | None:
        """Return the data of a block, or ``None`` if its file is missing or not as it was written.

        Raise `OSError` if it can't be read.
        """
        try:
            descriptor = os.open(self._root / name, _READ)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.file_size:
                return None
            content = bytearray(self.file_size)
            if file.readinto(content) != self.file_size:
                return None
        header, data = self._header(name), memoryview(content)[self._data_start :]
        checksum = blake2b(header, digest_size=_HASH_BYTES)
        checksum.update(data)
        return data if content.startswith(header + checksum.digest()) else None

    def write(self, name: str, data: bytes) -> None:
        """Write a block's file: to a temporary one, which is then renamed. Raise `OSError`.

        It is not forced to the disk: a crash of the machine leaves a damaged file at worst, which is a miss.
        """
        path = self._root / name
        temporary = self._root / self._folder / self._temporary(next(self._numbers))
        header = self._header(name)
        checksum = blake2b(header, digest_size=_HASH_BYTES)
        checksum.update(data)
        pieces = (header + checksum.digest(), data)
        try:
            _write_file(temporary, path, pieces)
        except FileNotFoundError:  # the first block there, or `furiosa-llm cache clear` while this runs
            self._make_folder(path.parent)
            _write_file(temporary, path, pieces)

    def touch(self, name: str) -> None:
        """Record a use of a block, for other engines and the next start. Raise `OSError`."""
        with suppress(FileNotFoundError, PermissionError):
            os.utime(self._root / name)

    def remove(self, name: str) -> None:
        """Remove a block's file, if it is there. Raise `OSError`."""
        (self._root / name).unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        description = folder.parent / DESCRIPTION
        with suppress(FileExistsError), open(os.open(description, _CREATE, 0o600), "wb") as file:
            file.write(self._description + self._name)

    def _header(self, name: str) -> bytes:
        return self._description + bytes.fromhex(name[len(self._folder) :].replace("/", ""))


def _write_file(temporary: Path, path: Path, pieces: Iterable[bytes]) -> None:
    try:
        with open(os.open(temporary, _CREATE, 0o600), "wb", buffering=0) as file:
            for piece in pieces:
                _write_all(file.fileno(), piece)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
