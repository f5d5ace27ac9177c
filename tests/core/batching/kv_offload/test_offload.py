"""The engine with tiers below its KV cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.fake_runner import FakeRunner, expected_tokens
from support.offload_runner import OffloadRunner

from fllm.batching import KVFormat, MovesBlocks
from fllm.batching.engine_loop import EngineLoop, Outcome
from fllm.batching.kv_offload import disk_tier
from fllm.batching.kv_offload.block_files import BlockFiles
from fllm.batching.kv_offload.offload import IDLE_SECONDS
from fllm.batching.limits import BatchLimits
from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm.values import CacheChanges, CacheTierStats, EngineOutput, GenerateRequest, SamplingParams

PROMPT = [n % 7 for n in range(33)]
OTHER = [(n + 1) % 5 for n in range(77)]


class Engine:
    """An engine loop in a thread, as `BatchedBackend` runs it."""

    def __init__(
        self,
        runner: FakeRunner,
        report_cache: Callable[[CacheChanges], None] | None = None,
        **options: Any,
    ) -> None:
        config, limits = BackendConfig(model="m", **options), BatchLimits(block_size=4)
        self.loop = EngineLoop(runner, config, limits, report_cache=report_cache)
        self.card = self.loop.load(lambda progress: None)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.thread = threading.Thread(target=self.loop.run, args=(self.outcomes.extend,))
        self.thread.start()

    def generate(self, token_ids: Sequence[int], **fields: Any) -> tuple[list[int], int | None]:
        """Return the tokens of one sequence and how many of its prompt's were cached; check the tokens."""
        request = GenerateRequest(f"{time.monotonic_ns()}", token_ids, SamplingParams(max_tokens=2), **fields)
        self.loop.submit(request, seed=0, arrival_time=0.0)
        outputs: list[EngineOutput] = []

        def is_finished() -> bool:
            outputs[:] = [o for key, o in self.outcomes if key == request.request_id]  # type: ignore[misc]
            return bool(outputs and outputs[-1].finish_reason)

        wait(is_finished)
        tokens = [token for output in outputs for token in output.token_ids]
        assert tokens == expected_tokens(request, 0)
        return tokens, outputs[0].cached_tokens

    def cached(self, token_ids: Sequence[int], **fields: Any) -> int | None:
        return self.generate(token_ids, **fields)[1]

    def tier(self, name: str) -> CacheTierStats:
        return self.loop.status().cache_tiers[name]

    def stop(self) -> None:
        self.loop.end()
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def engine(runner: FakeRunner | None = None, **options: Any) -> Iterator[Engine]:
    started = Engine(runner or OffloadRunner(blocks=20), **options)
    try:
        yield started
    finally:
        started.stop()


def wait(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def test_blocks_come_back_from_ram_after_eviction() -> None:
    with engine(kv_offload_memory=1 << 20) as running:
        assert running.cached(PROMPT) == 0
        assert running.cached(OTHER) == 0, "its 20 blocks evict all others"
        assert running.cached(PROMPT) == 32
        assert running.tier("ram").hits >= 32
        assert running.cached(PROMPT, cache_salt="mine") == 0
        assert set(running.loop.status().cache_tiers) == {"ram"}


def test_blocks_in_ram_are_not_reported_as_lost() -> None:
    held: set[bytes] = set()

    def report(changes: CacheChanges) -> None:
        held.update(changes.gained)
        held.difference_update(changes.lost)

    with engine(kv_offload_memory=9 * 600, report_cache=report) as running:
        for prompt in (PROMPT, OTHER, PROMPT, [5, 6] * 30):
            running.generate(prompt)
        running.loop.abort("nobody")  # another step, which reports the last changes
        time.sleep(0.05)
        assert running.loop._offload is not None
        assert running.loop._offload._ram is not None
        in_ram = set(running.loop._offload._ram.newest_first())
        assert in_ram - set(running.loop._pool._block_of)
        assert held == in_ram | set(running.loop._pool._block_of)


def test_ram_never_takes_more_than_its_limit() -> None:
    with engine(kv_offload_memory=5 * 600) as running:
        for _ in range(2):
            running.generate(PROMPT)
            running.generate(OTHER)
            assert 0 < running.tier("ram").used_bytes <= 3000


def test_blocks_survive_on_disk_a_normal_end_of_the_engine(tmp_path: Path) -> None:
    with engine(kv_cache_dir=str(tmp_path)) as running:
        tokens, _ = running.generate(PROMPT)
        running.generate(PROMPT, cache_salt="secret salt")
    names = [path.name for path in tmp_path.rglob("*")]
    assert not any("secret" in name for name in names)
    with engine(kv_cache_dir=str(tmp_path)) as running:
        assert running.generate(PROMPT) == (tokens, 32)
        assert running.cached(PROMPT, cache_salt="secret salt") == 32
        assert running.cached(PROMPT, cache_salt="another") == 0
        disk = running.tier("disk")
        assert (disk.hits, disk.misses) == (64, 32)
        assert disk.used_bytes == sum(p.stat().st_size for p in tmp_path.glob("*/*/*"))


def test_an_idle_engine_writes_so_that_a_kill_loses_nothing(tmp_path: Path) -> None:
    with engine(kv_cache_dir=str(tmp_path)) as running:
        running.generate(PROMPT)
        wait(lambda: len(list(tmp_path.glob("*/*/*"))) == 8)
        with engine(kv_cache_dir=str(tmp_path)) as second:
            assert second.cached(PROMPT) == 32


def test_an_idle_engine_waits_for_a_slow_disk_without_dropping_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, original = threading.Event(), BlockFiles.write

    def slow(self: BlockFiles, name: str, data: bytes) -> None:
        released.wait(5)
        original(self, name, data)

    monkeypatch.setattr(BlockFiles, "write", slow)
    with engine(kv_cache_dir=str(tmp_path)) as running:
        assert running.loop._offload is not None
        assert running.loop._offload._disk is not None
        size = running.loop._offload._disk._files.file_size
        monkeypatch.setattr(disk_tier, "QUEUED_BYTES", 3 * size)
        running.generate(PROMPT)
        time.sleep(IDLE_SECONDS + 0.15)
        assert not running.loop._offload.saved
        released.set()
        wait(lambda: len(list(tmp_path.glob("*/*/*"))) == 8)
        assert running.tier("disk").dropped_blocks == 0


@pytest.mark.parametrize("option", ["kv_offload_memory", "kv_cache_dir_size"])
def test_a_limit_below_one_block_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    with engine(kv_cache_dir=str(tmp_path), **{option: 10}) as running:
        running.generate(PROMPT)
    messages = [record.getMessage() for record in caplog.records if record.name == "fllm.batching"]
    assert [m.split(":")[0] for m in messages if "--" in m] == [f"--{option.replace('_', '-')} has no effect"]


def test_what_leaves_ram_goes_to_the_disk(tmp_path: Path) -> None:
    with engine(kv_cache_dir=str(tmp_path), kv_offload_memory=5 * 600) as running:
        running.generate(PROMPT)
        running.generate(OTHER)
        assert running.cached(PROMPT) == 32
        assert running.tier("disk").hits + running.tier("ram").hits == 32


@pytest.mark.parametrize("change", ["weights", "damage"])
def test_blocks_of_another_model_and_damaged_ones_are_misses(tmp_path: Path, change: str) -> None:
    with engine(kv_cache_dir=str(tmp_path)) as running:
        running.generate(PROMPT)
    runner = OffloadRunner(blocks=20)
    if change == "weights":
        runner.weights = "w2"
    else:
        third = BlockFiles(tmp_path, KVFormat(block_bytes=32, identity={"model": "w1"}))
        for path in tmp_path.glob("*/*/*"):
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
            assert third.read(str(path.relative_to(tmp_path))) is None
    with engine(runner, kv_cache_dir=str(tmp_path)) as running:
        assert running.cached(PROMPT) == 0


def test_a_slow_disk_delays_neither_others_nor_for_long_the_sequence_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(kv_cache_dir=str(tmp_path)) as running:
        running.generate(PROMPT)
    monkeypatch.setattr(disk_tier, "FETCH_SECONDS", 60.0)
    released = threading.Event()
    monkeypatch.setattr(BlockFiles, "read", lambda *_: released.wait(10) and None)
    with engine(kv_cache_dir=str(tmp_path)) as running:
        waiting = GenerateRequest("waits", PROMPT, SamplingParams(max_tokens=1))
        running.loop.submit(waiting, seed=0, arrival_time=0.0)
        wait(lambda: running.loop.status().waiting == 1)
        running.generate(OTHER)
        assert not any(key == "waits" for key, _ in running.outcomes)
        running.loop._scheduler._fetching["waits"].fetch.expires_at = 0.0  # type: ignore[union-attr]
        wait(lambda: any(key == "waits" for key, _ in running.outcomes))
        released.set()


def test_a_sequence_that_waits_for_its_blocks_can_be_aborted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(kv_cache_dir=str(tmp_path)) as running:
        running.generate(PROMPT)
    released = threading.Event()
    monkeypatch.setattr(BlockFiles, "read", lambda *_: released.wait(10) and None)
    with engine(kv_cache_dir=str(tmp_path)) as running:
        running.loop.submit(
            GenerateRequest("a", PROMPT, SamplingParams(max_tokens=1)), seed=0, arrival_time=0.0
        )
        wait(lambda: running.loop.status().waiting == 1)
        running.loop.abort("a")
        wait(lambda: running.loop.status().waiting == 0)
        released.set()
        assert not running.outcomes


def test_blocks_of_adapters_are_not_kept(tmp_path: Path) -> None:
    with engine(kv_cache_dir=str(tmp_path), kv_offload_memory=1 << 20) as running:
        running.generate(PROMPT, adapter=1)
        running.generate(OTHER)
        assert running.cached(PROMPT, adapter=1) == 0
    assert len(list(tmp_path.glob("*/*/*"))) == 19, "only those of the other prompt"


def test_nothing_is_copied_without_the_options() -> None:
    runner = OffloadRunner(blocks=20)
    with engine(runner) as running:
        running.generate(PROMPT)
        running.generate(OTHER)
        assert running.cached(PROMPT) == 0
        assert not running.loop.status().cache_tiers
    assert not runner.reads


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        (FakeRunner(), {"kv_offload_memory": 1}, "--kv-offload-memory: this backend can't copy"),
        (FakeRunner(), {"kv_cache_dir": "/tmp"}, "--kv-cache-dir: this backend can't copy"),
        (OffloadRunner(), {"kv_cache_dir": "/nowhere/d"}, "--kv-cache-dir /nowhere/d: No such file"),
        (
            OffloadRunner(),
            {"kv_offload_memory": 1, "enable_prefix_caching": False},
            "--kv-offload-memory .*remove --no-enable-prefix-caching",
        ),
    ],
)
def test_options_without_effect_are_errors_before_the_model_is_loaded(
    runner: FakeRunner, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineLoop(runner, BackendConfig(model="m", **options), BatchLimits(block_size=4))


def test_a_model_with_a_recurrent_state_ignores_the_options(caplog: pytest.LogCaptureFixture) -> None:
    runner = OffloadRunner(blocks=20)
    runner.card = replace(runner.card, recurrent=True)
    with caplog.at_level(logging.WARNING), engine(runner, kv_offload_memory=1000) as running:
        assert running.cached(PROMPT) == 0
        assert not running.loop.status().cache_tiers
    assert "are ignored: the model has a recurrent state" in caplog.text


def test_the_ability_is_a_protocol() -> None:
    assert isinstance(OffloadRunner(), MovesBlocks)
    assert not isinstance(FakeRunner(), MovesBlocks)
