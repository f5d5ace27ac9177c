"""Draw the README's picture from the results of ``compare.py``: throughput and latency of all servers.

::

    python benchmarks/picture.py ~/.cache/furiosa-llm/compare/compare.jsonl docs/throughput.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from comparison.loads import SIZES, STREAMS
from comparison.models import MODELS
from comparison.results import OURS, Results

from fllm_bench.plot import check_plot, draw_plot
from fllm_bench.report import MeasuredTarget, Report, Result, summarize
from fllm_bench.request_log import RequestLog
from fllm_bench.throughput import Throughput
from fllm_bench.workload import Sample


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="the file that compare.py wrote")
    parser.add_argument("picture", type=Path, help="an .svg or .png file")
    parser.add_argument("--model", default="135M", choices=MODELS)
    options = parser.parse_args()
    check_plot(options.picture)
    report = report_of(Results(options.results), options.model)
    if not report.results:
        parser.error(f"{options.results} has no throughput of {options.model}")
    draw_plot(report, options.picture)


def report_of(results: Results, name: str) -> Report:
    """Return the throughput of all servers of a model as a report of ``furiosa-llm bench throughput``."""
    model, sizes = MODELS[name].name, SIZES[MODELS[name].scale]
    servers = results.servers(model)
    workload = Throughput(
        concurrencies=STREAMS, requests=max(STREAMS) * sizes.requests, words=64, tokens=sizes.tokens
    )
    return Report(
        workload=workload,
        rounds=results.run.rounds if results.run else 0,
        targets=[MeasuredTarget(name=_title(server), url="", model=model) for server in servers],
        metrics=workload.metrics,
        results=[
            found
            for server in servers
            for streams in STREAMS
            if (found := _result(results, model, server, streams)).medians
        ],
        ratios=[],
    )


def _result(results: Results, model: str, server: str, streams: int) -> Result:
    cells = results.of(model, f"throughput-{streams}", server)
    samples = [Sample(cell.values, RequestLog()) for cell in cells if cell.values]
    return summarize(_title(server), streams, samples)


def _title(server: str) -> str:
    return "furiosa-llm" if server == OURS else server


if __name__ == "__main__":
    main()
