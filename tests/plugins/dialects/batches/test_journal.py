from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from fllm_dialects.batches.journal import Journal
from fllm_dialects.batches.protocol import LineError, LineResponse, OutputLine


def line(custom_id: str, status: int = 200) -> OutputLine:
    response = LineResponse(status_code=status, request_id="r", body=Raw(b"{}"))
    return OutputLine(id="l", custom_id=custom_id, response=response)


def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "output", tmp_path / "errors")


def ids(path: Path) -> list[str]:
    return [msgspec.json.decode(text)["custom_id"] for text in path.read_text().splitlines()]


def test_what_was_appended_is_done_after_it_is_opened_again(tmp_path: Path) -> None:
    first = journal(tmp_path)
    assert first.open() == set()
    unanswered = OutputLine(id="l", custom_id="d", error=LineError(code="x", message="y"))
    first.append([line("a"), line("b", 400), line("c"), unanswered])
    assert (first.completed, first.failed, first.done) == (2, 2, 4)
    first.close()
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("output", "errors")] == [0o600, 0o600]
    second = journal(tmp_path)
    assert second.open() == {"a", "b", "c", "d"}
    assert (second.completed, second.failed, second.done) == (2, 2, 4)
    second.append([line("e")])
    second.close()
    assert (ids(tmp_path / "output"), ids(tmp_path / "errors")) == (["a", "c", "e"], ["b", "d"])


@pytest.mark.parametrize("rest", [b'{"id": "l", "custom_id": "b"', b'{"custom_id": "b"}', b"\x00" * 99])
def test_a_line_that_is_not_complete_is_removed(tmp_path: Path, rest: bytes) -> None:
    first = journal(tmp_path)
    first.open()
    first.append([line("a")])
    first.close()
    with (tmp_path / "output").open("ab") as file:
        file.write(rest)
    second = journal(tmp_path)
    assert second.open() == {"a"}
    second.append([line("b")])
    second.close()
    assert ids(tmp_path / "output") == ["a", "b"]


def test_files_without_lines_are_removed(tmp_path: Path) -> None:
    files = journal(tmp_path)
    files.open()
    files.append([line("a", 500)])
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["errors"]


def test_a_failed_write_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = journal(tmp_path)
    files.open()
    files.append([line("a")])

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="No space"):
            files.append([line("b")])
    assert files.completed == 1
    assert ids(tmp_path / "output") == ["a"]
    files.append([line("b")])
    files.close()
    assert ids(tmp_path / "output") == ["a", "b"]
