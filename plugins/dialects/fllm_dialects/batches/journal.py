"""The output file and the error file of a batch, which are also the record of what is done.

A line is appended and made durable once its request has ended. After a restart, the requests whose lines are
there are not run again; a line that was not written completely is removed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import msgspec

from fllm_dialects.batches.contents import sync_directory
from fllm_dialects.batches.protocol import OutputLine, WrittenLine


class LineFile:
    """A file of JSON lines that only grows. All methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self.size = 0
        """Bytes of the complete lines."""

    def open(self) -> set[str]:
        """Return the ids of all complete lines, and remove what follows them. Raise `OSError`."""
        is_new = not self._path.exists()
        self._file = FileIO(self._path, "a+b", opener=_open_private)
        if is_new:
            sync_directory(self._path.parent)
        ids: set[str] = set()
        self.size = 0
        with self._path.open("rb") as lines:
            for line in lines:
                custom_id = _id_of(line)
                if custom_id is None:
                    break
                ids.add(custom_id)
                self.size += len(line)
        self._file.truncate(self.size)
        return ids

    def append(self, lines: bytes) -> None:
        """Add complete lines, durably. Raise `OSError`, after which the file is as before."""
        assert self._file is not None, "the file is open"
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fdatasync(self._file.fileno())
        except OSError:
            self._file.truncate(self.size)
            raise
        self.size += len(lines)

    def close(self) -> None:
        """Close the file; remove it if it is empty."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if not self.size:
            self._path.unlink(missing_ok=True)


class Journal:
    """Both files of a batch. A request is done once its line is in one of them. All methods block."""

    def __init__(self, output: Path, errors: Path) -> None:
        self.output, self.errors = LineFile(output), LineFile(errors)
        self.completed = self.failed = 0

    @property
    def done(self) -> int:
        """Number of the requests that are done."""
        return self.completed + self.failed

    def open(self) -> set[str]:
        """Open the files and return the ids of the requests that are done. Raise `OSError`."""
        self.close()
        succeeded, failed = self.output.open(), self.errors.open()
        self.completed, self.failed = len(succeeded), len(failed)
        return succeeded | failed

    def append(self, lines: Sequence[OutputLine]) -> None:
        """Make lines durable. Raise `OSError`."""
        succeeded = [line for line in lines if is_success(line)]
        failed = [line for line in lines if not is_success(line)]
        if succeeded:
            self.output.append(_encode(succeeded))
            self.completed += len(succeeded)
        if failed:
            self.errors.append(_encode(failed))
            self.failed += len(failed)

    def close(self) -> None:
        """Close the files; one that is empty is removed."""
        self.output.close()
        self.errors.close()


def _open_private(path: str, flags: int) -> int:
    """Open a file that only this user may read."""
    return os.open(path, flags, 0o600)


def _encode(lines: Sequence[OutputLine]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _id_of(line: bytes) -> str | None:
    """Return the id of a complete line."""
    try:
        custom_id = msgspec.json.decode(line, type=WrittenLine).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return custom_id if line.endswith(b"\n") else None


def is_success(line: OutputLine) -> bool:
    """Return whether a line belongs into the output file."""
    return line.response is not None and line.response.status_code == 200
