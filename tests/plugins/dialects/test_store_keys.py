"""Keys of a store, from a file or an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_dialects.store_keys import read_key

KEY = bytes(range(32))


@pytest.mark.parametrize("text", [KEY.hex(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"])
def test_a_key_is_hexadecimal_or_base64(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    assert read_key(tmp_path / "key") == KEY


@pytest.mark.parametrize("text", ["", "password", "00" * 31, "é" * 64])
def test_another_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="openssl rand -hex 32") as error:
        read_key(tmp_path / "key")
    assert not text or text not in error.value.message
    with pytest.raises(ConfigError, match=r"cannot be read: .*: No such file"):
        read_key(tmp_path / "nowhere")
