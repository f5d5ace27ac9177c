"""`benchmarks/simulate.py`: the model of time, what it conserves, and its traces."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from fllm.batching import BatchLimits, Row
from fllm.values import SamplingParams

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from simulation.cluster import Cluster, Run, Settings, simulate  # noqa: E402
from simulation.costs import StepCosts, features, fit, read_costs  # noqa: E402
from simulation.report import figures, mean  # noqa: E402
from simulation.server import flat_trace  # noqa: E402
from simulation.sweeps import SWEEPS  # noqa: E402
from simulation.trace import SHAPES, Trace, TraceRequest, generate, read_trace, write_trace  # noqa: E402

sys.path.remove(str(BENCHMARKS))

WHOLE_PROMPTS = BatchLimits(prefill_budget=None, max_num_batched_tokens=4096)


def costs(
    step: float = 1.0, decode: float = 0.0, token: float = 0.0, end: float = 0.0, **fields: Any
) -> StepCosts:
    values = {"kv_blocks": 1000, "block_size": 16, "max_model_len": 8192} | fields
    return StepCosts(seconds=(step, decode, token, end, 0.0, 0.0), **values)


def trace(*requests: tuple[float, int, int, tuple[int, ...]], block: int = 16) -> Trace:
    return Trace([TraceRequest(*each) for each in requests], block)


def ends(run: Run) -> list[tuple[float, float]]:
    return [(each.first, each.last) for each in run.served]


def test_the_time_of_one_request_is_that_of_its_steps() -> None:
    played = simulate(trace((0.0, 10, 3, ())), costs(1.0, decode=0.5, token=0.1, end=0.25), Settings())
    assert ends(played) == [(pytest.approx(1 + 10 * 0.1 + 0.25), pytest.approx(2.25 + 2 * 1.5))]
    assert list(played.gaps) == [1.5, 1.5]
    assert (played.steps, played.busy, played.seconds) == (3, [5.25], 5.25)


def test_a_request_that_arrives_during_a_step_joins_the_next_one() -> None:
    played = simulate(trace((0.0, 10, 3, ()), (1.5, 10, 1, ())), costs(), Settings())
    assert ends(played) == [(1.0, 3.0), (3.0, 3.0)]


def test_a_long_prompt_takes_steps_by_its_budget() -> None:
    limits = BatchLimits(prefill_budget=100, solo_prefill_budget=100)
    played = simulate(trace((0.0, 250, 1, ())), costs(), Settings(limits=limits))
    assert played.steps == 3, "later tokens cost more: 100, 88 and 62"


def test_a_shared_prefix_is_computed_once_where_it_is() -> None:
    shared = tuple(range(10))
    played = simulate(
        trace(
            (0.0, 170, 1, (*shared, 90)), (9.0, 170, 1, (*shared, 91)), (9.1, 170, 1, tuple(range(50, 61)))
        ),
        costs(0.0, token=0.01),
        Settings(replicas=2, limits=WHOLE_PROMPTS),
    )
    assert [each.replica for each in played.served] == [0, 0, 1]
    assert [each.cached for each in played.served] == [0, 160, 0]
    assert [each.first - each.arrival for each in played.served] == pytest.approx([1.7, 0.1, 1.7])
    assert figures(played).hits == pytest.approx(160 / 510)


def test_a_turn_arrives_after_the_one_before_and_finds_its_output() -> None:
    first = TraceRequest(0.0, 32, 17, (1, 2, 3, 4))
    second = TraceRequest(1.0, 64, 1, (1, 2, 3, 5), previous=0)
    played = simulate(Trace([first, second], 16), costs(), Settings(limits=WHOLE_PROMPTS))
    assert [each.arrival for each in played.served] == [0.0, 17.0]
    assert played.served[1].cached == 48, "the prompt, and a block of the output"
    known = Trace([first, second], 16).without_outputs()
    assert known.requests[0].hash_ids == (1, 2)
    assert simulate(known, costs(), Settings(limits=WHOLE_PROMPTS)).served[1].cached == 32


def test_waiting_times_are_those_of_a_queue_with_one_server() -> None:
    """Pollaczek and Khinchine: constant service at load r waits for r / (2 (1 - r)) of it in the mean."""
    source, now, requests = random.Random(5), 0.0, []
    load, service = 0.6, 2.0
    for _ in range(6000):
        now += source.expovariate(load / service)
        requests.append((now, 20, 1, ()))
    limits = BatchLimits(prefill_budget=None, max_num_seqs=1)
    played = simulate(trace(*requests), costs(1.0, token=0.05), Settings(limits=limits))
    result = figures(played)
    waits = result.ttft_mean - service
    assert waits == pytest.approx(service * load / (2 * (1 - load)), rel=0.07)
    assert result.busy == pytest.approx(load, rel=0.03)


LENGTHS = st.tuples(st.floats(0, 5), st.integers(1, 90), st.integers(1, 12), st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=25), st.integers(1, 4))
def test_every_request_is_served_once_and_nothing_is_left(
    drawn: list[tuple[float, int, int, int]], replicas: int
) -> None:
    """Also in a cache so small that sequences are preempted, and with prefixes that are shared."""
    requests = [
        TraceRequest(arrival, prompt, output, tuple(100 * kind + block for block in range(-(-prompt // 16))))
        for arrival, prompt, output, kind in drawn
    ]
    cluster = Cluster(
        Trace(requests, 16),
        costs(0.1, decode=0.01, token=0.001, kv_blocks=8, max_model_len=128),
        Settings(replicas=replicas),
    )
    played = cluster.run()
    assert [(each.arrival, each.prompt, each.tokens) for each in played.served] == [
        (arrival, prompt, output) for arrival, prompt, output, _ in drawn
    ]
    for each in played.served:
        assert each.arrival < each.first <= each.last
        assert each.cached < each.prompt
    assert len(played.gaps) == sum(output - 1 for _, _, output, _ in drawn)
    assert max(played.busy) <= played.seconds + 1e-9
    for replica, engine in zip(cluster.replicas, cluster.engines, strict=True):
        assert (replica.work, replica.requests, engine.scheduler.status().kv_blocks_used) == (0, 0, 0)


def test_the_same_trace_gives_the_same_run() -> None:
    played = generate(SHAPES["bursty-chats"], 60, seed=3).at_rate(4.0)
    first, second = (simulate(played, costs(0.01), Settings(replicas=3)) for _ in range(2))
    assert (first.served, first.gaps, first.busy) == (second.served, second.gaps, second.busy)
    assert first.served != simulate(played, costs(0.02), Settings(replicas=3)).served
    assert generate(SHAPES["bursty-chats"], 60, seed=3) == generate(SHAPES["bursty-chats"], 60, seed=3)
    assert generate(SHAPES["bursty-chats"], 60, seed=3) != generate(SHAPES["bursty-chats"], 60, seed=4)


PUBLISHED = {
    "azure-conversation": (1155, 211, 0.0),
    "azure-code": (2048, 28, 0.0),
    "mooncake-conversation": (12035, 343, 0.374),
    "mooncake-agents": (8596, 182, 0.59),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_generated_traces_have_the_figures_of_public_ones(
    name: str, published: tuple[float, float, float]
) -> None:
    generated = generate(SHAPES[name], 2000)
    assert len(generated.requests) == 2000
    length_in, length_out, hits = published
    assert sum(each.input_length for each in generated.requests) / 2000 == pytest.approx(length_in, rel=0.2)
    assert sum(each.output_length for each in generated.requests) / 2000 == pytest.approx(length_out, rel=0.2)
    assert generated.ideal_hits() == pytest.approx(hits, abs=0.06)
    assert 2000 / generated.requests[-1].arrival == pytest.approx(SHAPES[name].rate, rel=0.2)


MOONCAKE = """\
{"timestamp": 0, "input_length": 1100, "output_length": 50, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 700, "output_length": 3, "hash_ids": [0, 3]}
"""


def test_mooncakes_format_is_read_and_written(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(MOONCAKE)
    read = read_trace(file)
    assert read.requests == [
        TraceRequest(0.0, 1100, 50, (0, 1, 2)),
        TraceRequest(3.0, 700, 3, (0, 3)),
    ]
    assert read.prompt(0) == [0] * 512 + [1] * 512 + [2] * 76
    assert read.ideal_hits() == pytest.approx(512 / 1800)
    write_trace(read, file)
    assert read_trace(file) == read
    smaller = read.scaled(0.25)
    assert (smaller.prompt(1), smaller.requests[0].output_length) == ([0] * 128 + [3] * 47, 12)
    file.write_text(MOONCAKE + '{"timestamp": 1}')
    with pytest.raises(ValueError, match=r"line 3: .*input_length"):
        read_trace(file)


def test_times_are_scaled_to_a_rate_and_lengths_are_cut() -> None:
    played = trace((0.0, 90, 5, ()), (2.0, 20, 40, ()), (4.0, 9, 9, ()))
    assert [each.arrival for each in played.at_rate(0.25).requests] == [0.0, 4.0, 8.0]
    cut = played.within(64).requests
    assert [(each.input_length, each.output_length) for each in cut] == [(59, 5), (20, 32), (9, 9)]


def row(start: int, count: int, prompt: int, *, sample: bool) -> Row:
    sampling = SamplingParams(max_tokens=1)
    return Row(
        token_ids=[0] * (start + count),
        prompt_length=prompt,
        start=start,
        count=count,
        block_table=[],
        sampling=sampling,
        seed=0,
        sample=sample,
    )


def test_features_of_a_step_and_its_cost() -> None:
    rows = [
        row(99, 1, 90, sample=True),
        row(0, 4, 10, sample=False),
        row(6, 4, 10, sample=True),
        row(9, 1, 10, sample=True),
    ]
    expected = (1, 1, 9, 2, 100, (1 + 2 + 3 + 4) + (7 + 8 + 9 + 10) + 10)
    assert features(rows) == expected
    weights = (1.0, 2.0, 3.0, 5.0, 7.0, 11.0)
    priced = StepCosts(seconds=weights, kv_blocks=1, block_size=1, max_model_len=1)
    assert priced.of_step(rows) == sum(a * b for a, b in zip(weights, expected, strict=True))


def test_the_fit_finds_the_costs_and_none_is_negative() -> None:
    source = random.Random(1)
    steps = [(1.0, *(float(source.randrange(50)) for _ in range(5))) for _ in range(60)]
    true = (2.0, 0.5, 0.1, 0.7, 0.01, 0.001)
    seconds = [sum(a * b for a, b in zip(true, step, strict=True)) for step in steps]
    found, errors = fit(steps, seconds)
    assert found == pytest.approx(true)
    assert max(map(abs, errors)) < 1e-9
    falling = [5 - 0.05 * step[1] for step in steps]
    assert min(fit(steps, falling)[0]) == fit(steps, falling)[0][1] == 0


def test_the_measured_costs_are_there() -> None:
    for engines in (1, 2):
        measured = read_costs(BENCHMARKS / "simulation" / "costs.json", engines)
        assert measured.engines == engines
        assert 0 < measured.error < measured.error_90 < 0.3
        assert min(measured.seconds) >= 0 < measured.server.token
    with pytest.raises(ValueError, match="no costs for 3 engines on a machine: run --calibrate"):
        read_costs(BENCHMARKS / "simulation" / "costs.json", 3)


def test_sweeps_contain_the_defaults_and_means_are_means() -> None:
    for sweep in SWEEPS.values():
        varied = [each for _, each in sweep(Settings(replicas=2))]
        assert Settings(replicas=2) in varied
        assert len(varied) == len(set(map(str, varied)))
    one, two = (figures(simulate(flat_trace(3, 20, 2, 0, gap), costs(), Settings())) for gap in (0.0, 9.0))
    both = mean([one, two])
    assert both.ttft_mean == (one.ttft_mean + two.ttft_mean) / 2
    assert both.ttft[0] == (one.ttft[0] + two.ttft[0]) / 2


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("simulate")


def test_the_command_prints_a_row_for_each_number_of_replicas(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "trace.jsonl"
    options = ["--replicas", "1,2", "--shape", "azure-code", "--requests", "12", "--write-trace", str(file)]
    monkeypatch.setattr(sys, "argv", ["simulate.py", *options])
    script.main()
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")] == [
        "replicas",
        "1",
        "2",
    ]
    assert "12 requests: " in printed
    monkeypatch.setattr(
        sys, "argv", ["simulate.py", "--trace", str(file), "--block-tokens", "16", "--rate", "9"]
    )
    script.main()
    assert "| 8 | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--load", "0"], "must be positive"),
        (["--trace", "absent.jsonl"], "absent.jsonl"),
        (["--costs", "absent.json"], "absent.json"),
        (["--replicas", "0"], "--replicas"),
    ],
)
def test_a_wrong_option_is_one_line(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulate.py", *options])
    with pytest.raises(SystemExit) as exited:
        script.main()
    assert exited.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
