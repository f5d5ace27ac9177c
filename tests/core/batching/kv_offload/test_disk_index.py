import os
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm.batching.kv_offload.disk_index import STALE_SECONDS, DiskIndex

MODEL = "0" * 32


def name_of(number: int, model: str = MODEL) -> str:
    return f"{model}/{number % 256:02x}/{number:062x}"


def write(root: Path, name: str, size: int, age: float = 0.0) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(bytes(size))
    os.utime(root / name, (0, time.time() - age))


def scanned(root: Path, limit: int = 1000) -> DiskIndex:
    index = DiskIndex(root, limit)
    index.scan()
    return index


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 70)), max_size=25), st.integers(0, 150))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_files_never_exceed_the_limit(tmp_path: Path, sizes: list[tuple[int, int]], limit: int) -> None:
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.unlink()
    index = scanned(tmp_path, limit)
    for number, size in sizes:
        if index.make_room(size):
            write(tmp_path, name_of(number), size)
            index.add(name_of(number), size)
        present = {p: p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()}
        assert sum(present.values()) == index.used <= limit
        assert len(index) == len(present)


def test_an_index_is_rebuilt_in_the_order_of_use(tmp_path: Path) -> None:
    for number, age in enumerate([5, 30, 10]):
        write(tmp_path, name_of(number, "abcdef01" * 4), 100, age)
    index = scanned(tmp_path, 300)
    assert index.used == 300
    assert index.make_room(150)
    assert [name_of(n, "abcdef01" * 4) in index for n in range(3)] == [True, False, False]
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_what_other_engines_write_and_remove_becomes_known(tmp_path: Path) -> None:
    write(tmp_path, name_of(1), 10)
    mine = scanned(tmp_path)
    write(tmp_path, name_of(257), 20)
    write(tmp_path, name_of(2), 30)
    (tmp_path / name_of(1)).unlink()
    mine.scan()
    assert [name_of(n) in mine for n in (1, 257, 2)] == [False, True, True]
    assert mine.used == 50
    for folder in (tmp_path / MODEL).iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    mine.scan()
    assert (mine.used, len(mine)) == (0, 0)


def test_a_block_that_another_engine_has_just_used_stays(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, name_of(number), 100, age=50 - number)
    index = scanned(tmp_path, 200)
    os.utime(tmp_path / name_of(1))
    assert index.make_room(100)
    assert [name_of(n) in index for n in (1, 2)] == [True, False]


def test_files_of_others_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    others = [
        tmp_path / "notes.txt",
        tmp_path / MODEL / "aa" / "notes.txt",
        tmp_path / "x" / "aa" / ("0" * 62),
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(500))
    index = scanned(tmp_path, 100)
    assert not index.used
    assert not index.make_room(101)
    assert all(file.exists() for file in others)


def test_what_can_never_fit_removes_nothing(tmp_path: Path) -> None:
    write(tmp_path, name_of(1), 50)
    index = scanned(tmp_path, 100)
    assert not index.make_room(101)
    assert name_of(1) in index


def test_temporary_files_of_crashed_processes_are_removed(tmp_path: Path) -> None:
    write(tmp_path, f"{MODEL}/.1-0.tmp", 5, age=STALE_SECONDS + 9)
    write(tmp_path, f"{MODEL}/.2-0.tmp", 5)
    (tmp_path / MODEL / "mine.tmp").mkdir()
    os.utime(tmp_path / MODEL / "mine.tmp", (0, 0))
    scanned(tmp_path)
    assert sorted(p.name for p in (tmp_path / MODEL).iterdir()) == [".2-0.tmp", "mine.tmp"]
