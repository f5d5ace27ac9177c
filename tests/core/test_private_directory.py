from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm.private_directory import load_secret


def test_a_secret_is_made_once_and_only_for_this_user(tmp_path: Path) -> None:
    first = load_secret(str(tmp_path / "kv"))
    assert load_secret(str(tmp_path / "kv")) == first
    assert len(first) == 32
    assert [path.name for path in (tmp_path / "kv").iterdir()] == ["secret"]
    assert (tmp_path / "kv" / "secret").stat().st_mode & 0o777 == 0o600
    assert load_secret(str(tmp_path / "other")) != first


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_secret_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--kv-cache-dir .*: secret"):
        load_secret(str(tmp_path))
