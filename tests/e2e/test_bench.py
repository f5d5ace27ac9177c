"""``furiosa-llm bench`` against the real server: every workload, with few requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.http_server import Server, run

WORKLOADS = {
    "throughput": "--concurrency 1,2 --requests 2 --words 8 --tokens 4",
    "throughput --chat": "--concurrency 2 --requests 2 --words 8 --tokens 4",
    "latency --no-stream": "--requests 2 --words 8 --tokens 4",
    "prefill": "--requests 2 --words 64",
    "prefix": "--requests 1 --prefix-words 256 --words 8",
    "interference": "--requests 2 --words 4 --long-words 512",
    "agents": "--concurrency 2 --turns 2 --prefix-tokens 900 --growth-tokens 120 --tokens 4",
    "long-context": "--context 300 --tokens 4",
}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_measures_all_of_its_metrics(server: Server, workload: str) -> None:
    arguments = [*workload.split(), server.url, "--rounds", "1", "--json", *WORKLOADS[workload].split()]
    done = run("bench", *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    names = {figure["name"] for figure in report["figures"]}
    for result in report["results"]:
        assert set(result["medians"]) == names
        assert (result["failures"], result["short_answers"]) == ({}, 0)


def test_prompts_are_about_as_many_tokens_as_words(server: Server) -> None:
    done = run("bench", "prefill", server.url, "--rounds", "1", "--requests", "2", "--words", "200", "--json")
    [result] = json.loads(done.stdout)["results"]
    assert result["medians"]["prompt_tokens"] == pytest.approx(200, rel=0.05)


def test_a_long_context_has_exactly_the_wanted_tokens(server: Server) -> None:
    done = run("bench", "long-context", server.url, "--rounds", "1", "--context", "300", "--json")
    [result] = json.loads(done.stdout)["results"]
    assert result["medians"]["prompt_tokens"] == 300


def test_a_shared_prefix_is_cached_after_the_first_request(server: Server) -> None:
    done = run("bench", "prefix", server.url, "--rounds", "1", "--requests", "2", "--json")
    [result] = json.loads(done.stdout)["results"]
    assert result["medians"]["shared_to_new"] < 0.8
