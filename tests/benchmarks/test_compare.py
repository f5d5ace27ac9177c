"""`benchmarks/compare.py`: what is measured again, which peer is the best, and the table."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT
from support.wire_server import error_response, scripted_server, tokens

MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(module("machine"), "available_bytes", lambda: 1 << 40)


def module(name: str) -> ModuleType:
    return importlib.import_module(f"comparison.{name}")


def a_cell(load: str, server: str, round: int = 0, error: str | None = None, **values: float) -> Any:
    return module("results").Cell(
        model=MODEL, load=load, server=server, round=round, values=values, error=error, seconds=2.0
    )


def a_run(**more: Any) -> Any:
    values: dict[str, Any] = {
        "date": "1 May 2030",
        "machine": "a machine",
        "threads": 2,
        "rounds": 3,
        "avx2": False,
        "quick": False,
        "command": "make compare",
        "files": {MODEL: 98_000_000},
        "versions": {"ours": "1.0", "fast": "2.0"},
    }
    return module("results").Run(**values | more)


def results_of(file: Path, *cells: Any) -> Any:
    results = module("results").Results(file)
    results.begin(a_run())
    for cell in cells:
        results.add(cell)
    return results


def lines_of(results: Any) -> list[str]:
    return [*module("table").report(results, {MODEL: "small"})]


def rate(server: str, *values: float, load: str = "throughput-1") -> list[Any]:
    return [a_cell(load, server, index, output_tokens_per_s=value) for index, value in enumerate(values)]


def test_measurements_are_kept_line_by_line_and_read_again(tmp_path: Path) -> None:
    results_of(tmp_path / "r.jsonl", *rate("ours", 130, 140), a_cell("agents", "fast", error="it died"))
    again = module("results").Results(tmp_path / "r.jsonl")
    assert [each.error for each in again.of(MODEL, "agents", "fast")] == ["it died"]
    again.begin(again.run)
    again.add(a_cell("agents", "fast", requests_per_s=2.0))
    again = module("results").Results(tmp_path / "r.jsonl")
    assert again.values(MODEL, "throughput-1", "ours", "output_tokens_per_s") == [130, 140]
    [agents] = again.of(MODEL, "agents", "fast")
    assert (agents.error, agents.values) == (None, {"requests_per_s": 2.0})


def test_the_table_compares_the_medians_with_the_best_peer(tmp_path: Path) -> None:
    results = results_of(
        tmp_path / "r.jsonl",
        *rate("ours", 130, 150, 120),
        *rate("fast", 100, 90, 110),
        *rate("slow", 20),
        a_cell("long-context", "ours", ttft_p50_ms=8000, tpot_p50_ms=20),
        a_cell("long-context", "fast", ttft_p50_ms=10000, tpot_p50_ms=40),
        a_cell("long-context", "slow", error="stopped after 60 s"),
    )
    lines = lines_of(results)
    assert lines[0] == "1 May 2030; a machine; 2 threads"
    assert "| | ours | fast | slow | ours / best peer | bar |  |" in lines
    assert (
        "| 1 stream, tokens/s | 130 (120 to 150) | 100 (90 to 110) | 20 | 1.30, fast | 1.3 | met |" in lines
    )
    assert "| prompt of 7,000, TTFT, s | 8 | 10 | failed | 1.25, fast | 1.3 | **missed** |" in lines
    assert "| decode at 7,000, ms per token | 20 | 40 | failed | 2.00, fast | 1.5 | met |" in lines
    assert "- slow, long-context: stopped after 60 s" in lines
    assert "- fast: 2.0" in lines


def test_a_peer_that_rounds_too_much_is_not_the_best(tmp_path: Path) -> None:
    quality = {"ours": 0.0005, "llama.cpp Q8_0": 0.004, "rounds": 0.013, "exact": 0.0119}
    results = results_of(
        tmp_path / "r.jsonl",
        *rate("ours", 130),
        *rate("rounds", 200),
        *rate("exact", 100),
        *(a_cell("quality", server, mean_kl=value) for server, value in quality.items()),
    )
    lines = lines_of(results)
    assert "| | ours | rounds ‡ | exact | llama.cpp Q8_0 | ours / best peer | bar |  |" in lines
    assert "| 1 stream, tokens/s | 130 | 200 | 100 |  | 1.30, exact | 1.3 | met |" in lines
    assert any(line.endswith("| 8.00 | llama.cpp Q8_0's | met |") for line in lines)


def test_limits_are_of_ours_alone(tmp_path: Path) -> None:
    results = results_of(
        tmp_path / "r.jsonl",
        a_cell("constrained", "ours", ratio=0.98),
        a_cell("memory", "ours", loading_to_file=1.25, serving_to_file=1.6),
    )
    small = lines_of(results)
    assert "| constrained JSON / own free text | 0.98 |  | at least 1 | **missed** |" in small
    large = [*module("table").report(results, {MODEL: "large"})]
    assert "| memory while loading / file | 1.25 |  | at most 1.3 | met |" in large
    assert "| memory while serving / file | 1.6 |  | at most 1.5 | **missed** |" in large


class FakeEngine:
    """An engine whose server does nothing."""

    def __init__(self, name: str, starts: list[str]) -> None:
        self.name = name
        self._starts = starts

    def version(self) -> str:
        return "1"

    def start(self, port: int) -> subprocess.Popen[bytes]:
        self._starts.append(self.name)
        return subprocess.Popen(["sleep", "60"], start_new_session=True)

    def ready(self, port: int) -> bool:
        return True


LOAD = "throughput-1"


def run(results: Any, speeds: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rounds: int = 3) -> list[str]:
    """Run all rounds of one load; return the order in which the servers were measured."""
    order: list[str] = []

    def measured(arguments: Any, name: str, port: int, seed: str, limit: float | None) -> dict[str, float]:
        order.append(name)
        value = speeds[name]
        if isinstance(value, Exception):
            raise value
        return {"output_tokens_per_s": value}

    monkeypatch.setattr(module("contest"), "bench", measured)
    loads = [module("loads").Load(LOAD, ("throughput",))]
    engines = [FakeEngine(name, []) for name in speeds]
    contest = module("contest").Contest(
        module("models").MODELS["135M"], engines, results, file=Path(__file__), threads=2
    )
    contest.run(loads, (), rounds, float("inf"))
    return order


def test_servers_take_turns_and_hopeless_peers_get_one_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = results_of(tmp_path / "r.jsonl")
    order = run(results, {"ours": 100, "fast": 90, "slow": 50}, monkeypatch)
    assert order == ["ours", "fast", "slow", "fast", "ours", "ours", "fast"]


def test_a_run_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_of(
        tmp_path / "r.jsonl", *rate("ours", 1, 2), *rate("fast", 1), a_cell(LOAD, "fast", 1, "no")
    )
    results.begin(results.run)
    assert run(results, {"ours": 100, "fast": 90}, monkeypatch) == ["fast", "ours", "fast"]


def test_a_peer_that_fails_is_a_row_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = results_of(tmp_path / "r.jsonl")
    failed = module("contest").Failed("HTTP 500: it died")
    order = run(results, {"ours": 100, "broken": failed}, monkeypatch, rounds=2)
    assert order == ["ours", "broken", "ours"]
    assert f"- broken, {LOAD}: HTTP 500: it died" in lines_of(results)


def test_only_one_server_is_awake_and_all_end() -> None:
    servers = module("servers")
    starts: list[str] = []
    group = servers.Servers([FakeEngine(name, starts) for name in ("a", "b")])

    def state(name: str) -> str:
        stat = Path(f"/proc/{group[name]._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    try:
        with group.awake("a"):
            assert state("a") in "RS"
        with group.awake("b") as server:
            assert state("a") == "T"
            assert server.loading_bytes >= 0
            assert servers.memory(server._process.pid) > 1 << 14
        with group.awake("a"):
            assert (state("a") in "RS", state("b")) == (True, "T")
        assert starts == ["a", "b"]
        pids = [group[name]._process.pid for name in ("a", "b")]
    finally:
        group.end()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)


def test_a_sleeping_server_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("machine"), "available_bytes", lambda: 0)
    group = module("servers").Servers([FakeEngine(name, []) for name in ("a", "b")])
    try:
        for name in ("a", "b"):
            with group.awake(name):
                pass
        assert (group["a"].runs, group["b"].runs) == (False, True)
    finally:
        group.end()


def test_the_bench_command_measures_a_server() -> None:
    contest = module("contest")
    arguments = ("throughput", "--concurrency", "1", "--requests", "1", "--words", "4", "--tokens", "2")
    with scripted_server() as server:
        values = contest.bench(arguments, "ours", int(server.url.rpartition(":")[2]), "seed", 60)
    assert values["output_tokens_per_s"] > 0
    count = iter(range(100))

    def fails_later(body: dict[str, Any]) -> Any:
        return [error_response("500 Oops", "it died")] if next(count) else tokens(body)

    with scripted_server(fails_later) as server, pytest.raises(contest.Failed, match="HTTP 500: it died"):
        contest.bench(arguments, "ours", int(server.url.rpartition(":")[2]), "seed", 60)


def test_the_picture_has_a_line_for_each_server(tmp_path: Path) -> None:
    picture = importlib.import_module("picture")
    values = {"output_tokens_per_s": 100.0, "ttft_p50_ms": 20.0, "tpot_p50_ms": 9.0}
    results = results_of(
        tmp_path / "r.jsonl",
        *(a_cell(f"throughput-{n}", name, **values) for name in ("ours", "fast") for n in (1, 4)),
    )
    report = picture.report_of(results, "135M")
    assert [target.name for target in report.targets] == ["furiosa-llm", "fast"]
    assert [(each.server, each.concurrency) for each in report.results] == [
        ("furiosa-llm", 1),
        ("furiosa-llm", 4),
        ("fast", 1),
        ("fast", 4),
    ]
    assert report.results[0].medians == values


def test_short_loads_come_first_and_who_is_far_behind_in_all_gets_no_long_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest, order = module("contest"), []
    speeds = {"ours": 100.0, "fast": 90.0, "slow": 50.0}

    def measured(arguments: Any, name: str, *rest: Any) -> dict[str, float]:
        order.append((arguments[0], name))
        metric = {"agents": "requests_per_s", "prefill": "prompt_tokens_per_s"}.get(arguments[0])
        return {metric or "output_tokens_per_s": speeds[name]}

    monkeypatch.setattr(contest, "bench", measured)
    loads = [module("loads").Load(name, (name,)) for name in ("agents", LOAD, "prefill")]
    engines = [FakeEngine(name, []) for name in speeds]
    results = results_of(tmp_path / "r.jsonl")
    model = module("models").MODELS["135M"]
    contest.Contest(model, engines, results, file=Path(__file__), threads=2).run(loads, (), 2, float("inf"))
    assert order[:6] == [(load, name) for load in (LOAD, "prefill") for name in ("ours", "fast", "slow")]
    assert order[-4:] == [("agents", name) for name in ("ours", "fast", "fast", "ours")]
    assert ("agents", "slow") not in order


def test_a_peer_that_can_not_be_installed_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare, peers = importlib.import_module("compare"), importlib.import_module("peers")

    class Broken:
        def __init__(self, setup: Any, form: str) -> None: ...

        def install(self) -> None:
            raise peers.Unavailable("pip install broken: no such package")

    monkeypatch.setitem(compare.PEERS, "llama.cpp", Broken)
    results = results_of(tmp_path / "r.jsonl", *rate("ours", 100))
    setup = peers.Setup(gguf=tmp_path / "m.gguf", directory=tmp_path, threads=2)
    assert compare.prepared(module("models").MODELS["135M"], setup, ["llama.cpp Q8"], results) == {}
    assert "- llama.cpp Q8_0, start: pip install broken: no such package" in lines_of(results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "135M,7B"], "--models: 7B is not one of 135M, Q4_0, Q4_K_M"),
        (["--only", "throughput,speed"], "--only: speed is not one of throughput, prefill,"),
    ],
)
def test_an_unknown_model_or_load_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("compare").parse_arguments()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_load_is_chosen_with_all_of_its_concurrencies() -> None:
    wanted = importlib.import_module("compare").wanted
    assert wanted("throughput-16", ["throughput"])
    assert wanted("long-context", ["long-context"])
    assert wanted("agents", [])
    assert not wanted("prefill", ["throughput", "agents"])


def test_a_peer_that_takes_too_long_twice_gets_no_other_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest, starts, limits = module("contest"), [], []

    def measured(arguments: Any, name: str, port: int, seed: str, limit: float | None) -> dict[str, float]:
        limits.append((name, limit))
        if name == "slow":
            raise subprocess.TimeoutExpired("bench", limit or 0)
        return {"output_tokens_per_s": 100.0}

    monkeypatch.setattr(contest, "bench", measured)
    loads = [module("loads").Load(f"throughput-{n}", ("throughput",)) for n in (1, 4, 8)]
    engines = [FakeEngine(name, starts) for name in ("ours", "slow")]
    results = results_of(tmp_path / "r.jsonl")
    model = module("models").MODELS["135M"]
    contest.Contest(model, engines, results, file=Path(__file__), threads=2).run(loads, (), 1, float("inf"))
    assert limits == [("ours", None), ("slow", 40), ("ours", None), ("slow", 40), ("ours", None)]
    assert starts == ["ours", "slow", "slow"]
    assert "- slow, throughput-1: stopped after 40 s; ours took a third of that, or less" in lines_of(results)
