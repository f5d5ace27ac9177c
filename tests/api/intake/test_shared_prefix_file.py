"""Files of ``--shared-prefix``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_api.intake.shared_prefix_file import read_shared_prefix


@pytest.mark.parametrize("text", ["Be brief.", "Be brief.\n"])
def test_a_text_is_a_system_prompt_without_its_last_line_break(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    prefix = read_shared_prefix(tmp_path / "a.txt")
    assert prefix.text == "Be brief."
    assert [(message.role, message.content) for message in prefix.chat.messages] == [("system", "Be brief.")]


def test_other_line_breaks_and_spaces_count(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(" a\n\n\n")
    assert read_shared_prefix(tmp_path / "a.md").text == " a\n\n"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\n", "is empty"),
        ("a.txt", b"\xff", "can't be read: 'utf-8'"),
        ("a.json", b"{", "can't be read: Input data was truncated"),
        ("a.json", b"[" * 5000, "can't be read"),
        ("a.json", b'{"messages": []}', r"length >= 1 - at `\$.messages`"),
        ("a.json", b'{"messages": [{"role": "", "content": "a"}]}', "length >= 1"),
        ("a.json", b'{"messages": [{"role": "user"}], "model": "m"}', "unknown field `model`"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"--shared-prefix {tmp_path / name} .*{problem}"):
        read_shared_prefix(tmp_path / name)


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_shared_prefix(tmp_path)
