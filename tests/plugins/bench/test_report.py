"""From samples to medians, ratios, a table and a plot."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from fllm.errors import ConfigError
from fllm_bench.metrics import OUTPUT_RATE, PROMPT_TOKENS, TPOT_P50, TTFT_P50
from fllm_bench.plot import check_plot, draw_plot
from fllm_bench.report import MeasuredTarget, Report, Result, compare_results, summarize
from fllm_bench.request_log import RequestLog
from fllm_bench.response_reader import Completion
from fllm_bench.table import format_table, notes
from fllm_bench.throughput import Throughput
from fllm_bench.workload import Sample

COMPLETION = Completion(first_token=1, last_token=1, end=1, output_tokens=1, prompt_tokens=1)


def a_sample(rate: float | None, *failures: str, short: int = 0) -> Sample:
    """One completion at this rate, or none."""
    log = RequestLog(completions=[] if rate is None else [COMPLETION], failures=list(failures), short=short)
    return Sample({} if rate is None else {OUTPUT_RATE.name: rate}, log)


def a_result(server: str, concurrency: int = 1, **medians: float) -> Result:
    """One without failures, whose rounds were all alike."""
    return Result(
        server=server,
        concurrency=concurrency,
        medians=medians,
        rounds=[medians] * 3,
        completions=48,
        short_completions=0,
        failures={},
    )


def a_report(*results: Result) -> Report:
    """That of a throughput run."""
    names = list(dict.fromkeys(result.server for result in results))
    workload = Throughput(concurrencies=(1, 4), requests=16, words=64, tokens=64)
    by_concurrency = {each: [r for r in results if r.concurrency == each] for each in (1, 4)}
    return Report(
        workload=workload,
        rounds=3,
        targets=[MeasuredTarget(name=name, url=f"http://{name}/v1", model="m") for name in names],
        metrics=workload.metrics,
        results=list(results),
        ratios=[compare_results(row, workload.metrics) for row in by_concurrency.values() if len(row) > 1],
    )


def printed(report: Report) -> str:
    """The table, as plain text."""
    console = Console(file=io.StringIO(), width=100)
    console.print(format_table(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


TWO = a_report(
    a_result("ours", 1, output_tokens_per_s=120, ttft_p50_ms=50, tpot_p50_ms=8),
    a_result("peer", 1, output_tokens_per_s=100, ttft_p50_ms=100, tpot_p50_ms=9.123),
    a_result("ours", 4, output_tokens_per_s=300.4, ttft_p50_ms=80, tpot_p50_ms=12),
    a_result("peer", 4, output_tokens_per_s=150.2, ttft_p50_ms=40, tpot_p50_ms=0.0123),
)


def test_a_result_is_the_median_of_the_rounds() -> None:
    result = summarize("ours", 4, [a_sample(1.0), a_sample(9.0), a_sample(2.0)])
    assert result.medians == {"output_tokens_per_s": 2.0}
    assert [each["output_tokens_per_s"] for each in result.rounds] == [1.0, 9.0, 2.0]
    assert (result.completions, result.failures) == (3, {})


def test_a_round_without_completions_counts_as_failures_only() -> None:
    samples = [a_sample(1.0, "HTTP 500", short=1), a_sample(None, "HTTP 500", "refused"), a_sample(3.0)]
    result = summarize("ours", 4, samples)
    assert result.medians == {"output_tokens_per_s": 2.0}
    assert (result.completions, result.short_completions) == (2, 1)
    assert result.failures == {"HTTP 500": 2, "refused": 1}


def test_a_ratio_is_to_the_best_peer_of_each_metric() -> None:
    results = [
        a_result("ours", output_tokens_per_s=120, ttft_p50_ms=50, prompt_tokens=64),
        a_result("fast", output_tokens_per_s=100, ttft_p50_ms=100, prompt_tokens=64),
        a_result("prompt", output_tokens_per_s=60, ttft_p50_ms=40, tpot_p50_ms=9, prompt_tokens=64),
    ]
    compared = compare_results(results, (OUTPUT_RATE, TTFT_P50, TPOT_P50, PROMPT_TOKENS))
    assert compared.ours_to_best_peer == {"output_tokens_per_s": 1.2, "ttft_p50_ms": 1.25}


def test_the_table_has_a_row_for_each_server_and_ratio() -> None:
    rows = [line.split() for line in printed(TWO).splitlines() if line.strip()]
    assert ["1", "ours", "120", "50", "-", "8", "-", "-", "-"] in rows
    assert ["1", "peer", "100", "100", "-", "9.12", "-", "-", "-"] in rows
    assert ["ratio", "1.2", "0.5", "-", "0.877", "-", "-", "-"] in rows
    assert ["4", "peer", "150", "40", "-", "0.0123", "-", "-", "-"] in rows
    assert all(len(line) <= 80 for line in printed(TWO).splitlines())


def test_a_server_alone_has_no_ratio() -> None:
    alone = a_report(a_result("ours", output_tokens_per_s=1))
    assert "ratio" not in printed(alone)
    assert list(notes(alone)) == ["medians of 3 rounds"]


def test_notes_say_what_makes_numbers_unreliable() -> None:
    doubtful = msgspec.structs.replace(TWO.results[1], short_completions=3, failures={"HTTP 500: [no]": 2})
    assert list(notes(a_report(TWO.results[0], doubtful))) == [
        "medians of 3 rounds",
        "ratio: ours to the best of the others",
        "peer, 1 at once: 3 of 48 completions ended early",
        "peer, 1 at once: 2 of 50 requests failed: HTTP 500: [no]",
    ]


def test_a_plot_is_drawn_as_svg_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_plot(TWO, tmp_path / name)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_plot_is_drawn_as_png_even_where_metrics_are_missing(tmp_path: Path) -> None:
    check_plot(tmp_path / "a.png")
    draw_plot(a_report(a_result("ours", 1), a_result("peer", 1, ttft_p50_ms=1)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "message"), [("a.pdf", "must end in .svg or .png"), ("no/a.svg", "does not exist")]
)
def test_a_plot_that_can_not_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_plot(tmp_path / name)
