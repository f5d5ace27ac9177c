from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fllm.batching import KVFormat
from fllm.batching.kv_offload.block_files import BlockFiles
from fllm_backends.checkpoints.cache_command import cache


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    for name, size in {
        "gguf/tiny-1234-2/tokenizer.json": 2**20,
        "gguf/old-5678-float32-1/model-00001.safetensors": 3 * 2**20,
        "kernels/abc/fused/kernel.nbc": 100,
        "mine/file": 1,
    }.items():
        file = tmp_path / "cache" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(size))
    return tmp_path / "cache"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cache, arguments)


def test_the_list_has_sizes_kinds_and_weights_of_earlier_versions() -> None:
    lines = run("list").output.splitlines()
    assert lines[0].split(maxsplit=2)[2] == "gguf/old-5678-float32-1  (float32 weights of an earlier version)"
    assert lines[0].split()[:2] == ["3.0", "MiB"]
    assert lines[1].split(maxsplit=2)[2] == "gguf/tiny-1234-2  (tokenizer and settings of a GGUF file)"
    assert lines[2].split(maxsplit=2)[2] == "kernels/abc  (compiled kernels)"
    assert lines[3].split()[0] == "4.0"
    assert [entry["size"] for entry in json.loads(run("list", "--json").output)] == [3 * 2**20, 2**20, 100]


def test_one_entry_is_removed_by_a_part_of_its_name(root: Path) -> None:
    assert run("clear", "old-5678", "--yes").output == "removed 1 entries of 3.0 MiB\n"
    assert [entry.name for entry in (root / "gguf").iterdir()] == ["tiny-1234-2"]


def test_all_entries_are_removed_and_nothing_else(root: Path) -> None:
    assert run("clear", "--all", "--yes").exit_code == 0
    assert [*(root / "gguf").iterdir(), *(root / "kernels").iterdir()] == []
    assert (root / "mine" / "file").exists()


def test_what_a_link_points_to_is_neither_counted_nor_removed(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "large.safetensors").write_bytes(bytes(2**20))
    (root / "gguf" / "link").symlink_to(other)
    (root / "gguf" / "tiny-1234-2" / "inner").symlink_to(other)
    sizes = {entry["name"]: entry["size"] for entry in json.loads(run("list", "--json").output)}
    assert sizes["link"] < 4096
    assert sizes["tiny-1234-2"] < 2**20 + 4096
    assert run("clear", "--all", "--yes").exit_code == 0
    assert (other / "large.safetensors").exists()
    assert [*(root / "gguf").iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clear"], "pass the NAME of entries to remove, or --all"),
        (["clear", "tiny", "--all"], "pass the NAME of entries to remove, or --all"),
        (["clear", "nothing", "--yes"], "has no entry 'nothing'"),
        (["clear", "--all"], "pass --yes"),
    ],
)
def test_a_mistake_removes_nothing(arguments: list[str], message: str, root: Path) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert len([*root.rglob("*")]) == 11


def test_an_empty_cache_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "none"))
    assert run("list").output.split()[:2] == ["0.0", "MiB"]
    assert not (tmp_path / "none").exists()


def test_kv_blocks_are_listed_by_model_and_removed_without_the_secret(tmp_path: Path) -> None:
    kv, model = tmp_path / "kv", "0123456789abcdef" * 2
    (kv / model / "aa").mkdir(parents=True)
    (kv / model / "aa" / ("0" * 62)).write_bytes(bytes(2**20))
    (kv / model / "description.txt").write_text(
        "version 1\ndecoder: 'FusedLM'\nname: 'tiny\x1b[31m'\ndtype: 'auto'\n"
    )
    (kv / "secret").write_bytes(b"s" * 32)
    (kv / "mine").mkdir()
    (kv / ("f" * 32)).symlink_to(tmp_path)
    entries = json.loads(run("list", "--json", "--kv-cache-dir", str(kv)).output)
    [entry] = [entry for entry in entries if entry["kind"] == "kv"]
    assert (entry["name"], entry["content"]) == (model, "KV blocks: FusedLM auto")
    assert entry["size"] > 2**20
    assert "1.0 MiB" in run("clear", "kv/", "--yes", "--kv-cache-dir", str(kv)).output
    assert sorted(path.name for path in kv.iterdir()) == ["f" * 32, "mine", "secret"]
    assert all(entry["kind"] != "kv" for entry in json.loads(run("list", "--json").output))


def test_kv_blocks_are_listed_and_removed_while_a_server_writes(tmp_path: Path) -> None:
    files = BlockFiles(tmp_path, KVFormat(block_bytes=10, identity={"model": "m"}))
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            with suppress(FileNotFoundError, FileExistsError):  # removed while it is made
                files.write(files.name(b"%d" % (time.monotonic_ns() % 300)), bytes(10))

    with ThreadPoolExecutor(1) as executor:
        writer = executor.submit(write)
        try:
            for _ in range(5):
                assert run("list", "--json", "--kv-cache-dir", str(tmp_path)).exit_code == 0
                result = run("clear", "--all", "--yes", "--kv-cache-dir", str(tmp_path))
                assert result.exit_code == 0, result.output
        finally:
            ended.set()
        writer.result()
