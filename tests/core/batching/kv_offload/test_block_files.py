import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm.batching import KVFormat
from fllm.batching.kv_offload.block_files import BlockFiles
from fllm.errors import ConfigError
from fllm.private_directory import open_directory

DATA = bytes(range(40))


def files(root: Path, block_bytes: int = len(DATA), **identity: str) -> BlockFiles:
    return BlockFiles(root, KVFormat(block_bytes=block_bytes, identity=identity or {"model": "a"}))


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_written(tmp_path: Path, block_hash: bytes, data: bytes) -> None:
    store = files(tmp_path, len(data))
    name = store.name(block_hash)
    store.write(name, data)
    assert store.read(name) == data
    assert (tmp_path / name).stat().st_size == store.file_size


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_with_any_other_bytes_is_a_miss(tmp_path: Path, data: st.DataObject) -> None:
    store = files(tmp_path)
    name = store.name(b"hash")
    store.write(name, DATA)
    content = bytearray((tmp_path / name).read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "longer", "other"]))
    if kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "longer":
        content += data.draw(st.binary(min_size=1))
    else:
        content = bytearray(data.draw(st.binary(min_size=len(content), max_size=len(content))))
    (tmp_path / name).write_bytes(content)
    assert store.read(name) is None


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        root = open_directory(str(tmp_path / "new"))
        store = files(root)
        store.write(store.name(b"hash"), DATA)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in [root, *root.rglob("*")] if p.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in root.rglob("*") if p.is_file()} == {0o600}


def test_a_link_or_a_pipe_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    store = files(tmp_path)
    name = store.name(b"hash")
    store.write(name, DATA)
    (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / name).symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match="symbolic links"):
        store.read(name)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert store.read(name) is None


def test_the_key_depends_on_all_of_the_identity(tmp_path: Path) -> None:
    same = files(tmp_path, model="a", dtype="b")
    others = [
        files(tmp_path, model="a", dtype="c"),
        files(tmp_path, model="c", dtype="b"),
        files(tmp_path, len(DATA) + 1, model="a", dtype="b"),
        files(tmp_path, model="a\ndtype: b"),
    ]
    assert same.name(b"h") == files(tmp_path, dtype="b", model="a").name(b"h")
    assert len({store.name(b"h") for store in [same, *others]}) == 5
    assert same.name(b"h") != same.name(b"i")


def test_a_file_under_the_name_of_another_block_is_a_miss(tmp_path: Path) -> None:
    store = files(tmp_path)
    one, two = store.name(b"1"), store.name(b"2")
    store.write(one, DATA)
    store.write(two, DATA)
    (tmp_path / two).write_bytes((tmp_path / one).read_bytes())
    assert (store.read(one), store.read(two)) == (DATA, None)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = files(tmp_path)
    store.write(store.name(b"0"), DATA)
    before = sorted(tmp_path.rglob("*"))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    name = store.name(b"0")[:35] + store.name(b"1")[35:]
    with pytest.raises(OSError, match="No space"):
        store.write(name, DATA)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_directory_is_created_but_not_its_parent(tmp_path: Path) -> None:
    assert open_directory(str(tmp_path / "a")).is_dir()
    with pytest.raises(ConfigError, match=r"--kv-cache-dir .*/b/c: No such file"):
        open_directory(str(tmp_path / "b" / "c"))


def test_a_file_and_a_directory_that_others_can_write_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--kv-cache-dir"):
        open_directory(str(tmp_path / "file"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by others: run chmod go-w"):
        open_directory(str(tmp_path / "open"))


@pytest.mark.parametrize("change", ["owner", "mode"])
def test_a_directory_of_another_user_or_without_write_access_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        expected = "belongs to the user"
    else:

        def deny(*_: object, **__: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)
        expected = "Permission denied"
    with pytest.raises(ConfigError, match=expected):
        open_directory(str(tmp_path))
