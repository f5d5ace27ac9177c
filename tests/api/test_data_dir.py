"""The directory for what the server stores."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fllm_api.api_keys import ApiKeys
from fllm_api.config import ServerConfig
from fllm_api.data_dir import DataDir, default_data_dir


def a_config(path: Path | None, keys: ApiKeys | None = None) -> ServerConfig:
    return ServerConfig(served_model_name="m", data_dir=path, keys=keys or ApiKeys(["k"]))


def test_it_is_made_when_it_is_needed_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    directory = DataDir(a_config(path))
    assert not path.exists()
    assert directory.open() == path == directory.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_owners_are_the_same_after_a_restart(tmp_path: Path) -> None:
    def owner(path: Path) -> str:
        keys = ApiKeys(["k"])
        DataDir(a_config(path, keys)).open()
        return keys.owner(b"k")

    assert owner(tmp_path / "a") == owner(tmp_path / "a") != owner(tmp_path / "b")
    assert owner(tmp_path / "a").startswith("key:")


def test_a_directory_that_can_not_be_used_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.touch()
    directory = DataDir(a_config(file / "below"))
    assert directory.open() is directory.open() is None
    assert caplog.text.count("is lost when the server stops: --data-dir") == 1
    assert DataDir(a_config(None)).open() is None
    assert "no home directory; set --data-dir" in caplog.text


def test_the_default_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert default_data_dir() == Path("/s/furiosa-llm")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert default_data_dir() == Path("/h/.local/state/furiosa-llm")


def test_a_user_without_a_home_directory_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert default_data_dir() is None
