"""Who may write to the cache directory, whose kernels the server executes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_backends.checkpoints import cache_directory
from fllm_backends.checkpoints.cache_directory import (
    configured_directory,
    find_problem_in,
    private_files,
    read_only_directory,
    resolve_trusted,
    writable_directory,
)

ANOTHER = 4711


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLLM_TRUST_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "cache"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_new_directory_is_private_whatever_the_umask(cache: Path) -> None:
    umask = os.umask(0)
    try:
        directory = writable_directory("kernels")
        with private_files():
            (directory / "file").write_text("")
    finally:
        os.umask(umask)
    assert directory == cache / "kernels"
    assert (mode_of(cache), mode_of(directory), mode_of(directory / "file")) == (0o700, 0o700, 0o600)
    assert find_problem_in(cache) == ""


@pytest.mark.parametrize("level", ["", "kernels", ".."])
def test_a_directory_that_every_user_can_write_to_is_refused(level: str, cache: Path) -> None:
    (cache / "kernels").mkdir(parents=True)
    (cache / level).chmod(0o777)
    with pytest.raises(ConfigError, match=r"every user can write to .*FLLM_TRUST_CACHE=1"):
        writable_directory("kernels")


def test_the_operator_can_vouch_for_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "kernels").mkdir(parents=True)
    cache.chmod(0o777)
    (cache / "kernels" / "file").touch(0o666)
    monkeypatch.setenv("FLLM_TRUST_CACHE", "1")
    assert writable_directory("kernels") == cache / "kernels"
    assert find_problem_in(cache) == ""
    monkeypatch.setenv("FLLM_TRUST_CACHE", "0")
    with pytest.raises(ConfigError, match="every user can write"):
        writable_directory("kernels")


def test_a_parent_where_others_can_not_rename_is_trusted(cache: Path) -> None:
    cache.parent.chmod(0o1777)
    assert writable_directory("kernels") == cache / "kernels"
    cache.chmod(0o1777)
    assert writable_directory("kernels") == cache / "kernels"
    (cache / "kernels").chmod(0o1777)
    with pytest.raises(ConfigError, match="every user can write"):
        writable_directory("kernels")


def test_a_group_is_trusted_if_it_has_no_other_members(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "kernels").mkdir(parents=True)
    (cache / "kernels").chmod(0o775)
    assert resolve_trusted(cache / "kernels") == cache / "kernels"  # a private group, or root's
    monkeypatch.setattr(cache_directory, "_is_private_group", lambda gid: False)
    with pytest.raises(ConfigError, match="other users can write to"):
        resolve_trusted(cache / "kernels")
    monkeypatch.undo()
    monkeypatch.setattr(cache_directory, "_has_access_list", lambda path: True)
    with pytest.raises(ConfigError, match="other users can write to"):
        resolve_trusted(cache / "kernels")


def test_a_directory_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = writable_directory("kernels")
    (directory / "file").write_text("")
    own_files_by(ANOTHER, monkeypatch)
    assert f"belongs to the user {ANOTHER}" in find_problem_in(directory)
    with pytest.raises(ConfigError, match=f"belongs to the user {ANOTHER}, and the server executes"):
        writable_directory("kernels")


def test_a_directory_of_another_user_that_can_not_be_written_is_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writable_directory("kernels")
    own_files_by(ANOTHER, monkeypatch)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert read_only_directory("kernels") is None
    with pytest.raises(PermissionError, match=f"belongs to the user {ANOTHER}"):
        resolve_trusted(cache / "kernels")


def own_files_by(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files of this test look as if they belonged to ``user``."""
    lstat = Path.lstat

    def changed(path: Path) -> os.stat_result:
        status = lstat(path)
        values = [*status]
        values[4] = user if "cache" in path.parts else status.st_uid
        return os.stat_result(values)

    monkeypatch.setattr(Path, "lstat", changed)


def test_symbolic_links_to_trusted_directories_are_resolved(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "large").mkdir(parents=True)
    cache.symlink_to("disk/../disk/large")
    assert writable_directory("gguf") == tmp_path / "disk" / "large" / "gguf"
    (tmp_path / "disk").chmod(0o777)
    with pytest.raises(ConfigError, match=r"every user can write to '.*disk'"):
        writable_directory("gguf")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("file", "'.*cache' is not a directory"),
        ("dangling", "'.*cache' is a symbolic link to nothing"),
        ("loop", "'.*cache' is a symbolic link to nothing"),
        ("pipe", "'.*cache' is not a directory"),
    ],
)
def test_what_is_not_a_directory_is_one_line(kind: str, message: str, cache: Path) -> None:
    match kind:
        case "file":
            cache.write_text("")
        case "dangling":
            cache.symlink_to("nothing")
        case "loop":
            cache.symlink_to("cache")
        case _:
            os.mkfifo(cache)
    with pytest.raises(ConfigError, match=message) as caught:
        writable_directory("kernels")
    assert "set FLLM_CACHE to another directory" in caught.value.message
    assert "\n" not in caught.value.message


def test_odd_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("relative", "with spaces", "with\nnewline", "a/../b"):
        monkeypatch.setenv("FLLM_CACHE", name)
        assert writable_directory("kernels").is_dir()


def test_a_cache_that_can_not_be_written_is_replaced_by_a_temporary_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLLM_CACHE", "/proc/nothing")
    own = f"furiosa-llm-{os.geteuid()}"
    for _ in range(2):
        assert writable_directory("kernels") == cache.parent / "temporary" / own / "kernels"
    assert caplog.text.count("which may not last; set FLLM_CACHE") == 1
    (cache.parent / "temporary" / own).chmod(0o777)  # as if another user had created it
    with pytest.raises(OSError, match="No such file"):
        writable_directory("kernels")
    monkeypatch.setattr(cache_directory, "SHARED_MEMORY", cache.parent / "memory")
    assert cache.parent / "memory" / own in writable_directory("kernels", in_memory=True).parents


def test_without_a_home_directory_the_cache_is_temporary(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLLM_CACHE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry and HOME
    assert writable_directory("gguf").is_relative_to(cache.parent / "temporary")


def test_the_default_is_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLLM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert configured_directory("gguf") == tmp_path / "xdg" / "furiosa-llm" / "gguf"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert configured_directory("gguf") == tmp_path / ".cache" / "furiosa-llm" / "gguf"
