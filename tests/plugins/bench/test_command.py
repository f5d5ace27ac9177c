"""``furiosa-llm bench`` on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.wire_server import WireServer, error_response, scripted_server, tokens

from fllm_api.cli import main

SMALL = {
    "throughput": ["--concurrency", "1,2", "--requests", "2", "--words", "4", "--tokens", "2"],
    "latency": ["--requests", "2", "--words", "4", "--tokens", "2"],
    "prefill": ["--requests", "2", "--words", "8"],
    "prefix": ["--requests", "1", "--prefix-words", "8", "--words", "4"],
    "interference": ["--requests", "2", "--words", "4", "--long-words", "16"],
    "agents": [
        "--concurrency",
        "2",
        "--turns",
        "2",
        "--prefix-tokens",
        "80",
        "--growth-tokens",
        "20",
        "--tokens",
        "2",
    ],
    "long-context": ["--context", "200", "--tokens", "2"],
}


def test_help_imports_no_more_than_the_command_line() -> None:
    code = (
        "import sys\nsys.argv = ['furiosa-llm', 'bench', 'throughput', '--help']\n"
        "from fllm_api.cli import main\n"
        "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--concurrency" in done.stdout
    assert not set(done.stderr.split()) & {"aiohttp", "asyncio", "matplotlib", "numpy"}


class Bench:
    """Runs the command, and keeps what it prints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.error = ""

    def __call__(self, workload: str, *arguments: str, status: int = 0) -> str:
        """Stdout of a run that ends with ``status``."""
        command = ["furiosa-llm", "bench", workload, "--rounds", "2", *SMALL.get(workload, []), *arguments]
        self._monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        output, self.error = self._capsys.readouterr()
        assert ended.value.code == status, self.error
        return output


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(monkeypatch, capsys)


def keys(server: WireServer) -> set[str]:
    lines = [line for head in server.heads for line in head.splitlines()]
    return {line for line in lines if line.startswith("Authorization")}


@pytest.mark.parametrize("workload", SMALL)
def test_every_workload_prints_a_table(bench: Bench, workload: str) -> None:
    with scripted_server() as server:
        output = bench(workload, server.url)
    assert "furiosa-llm" in output
    assert output.endswith("medians of 2 rounds\n")
    assert bench.error == ""


@pytest.mark.parametrize("workload", SMALL)
def test_json_is_all_that_stdout_gets(bench: Bench, workload: str) -> None:
    with scripted_server() as ours, scripted_server() as theirs:
        output = bench(workload, ours.url, "--against", f"peer={theirs.url}", "--json", "--api-key", "k3y")
    report: dict[str, Any] = msgspec.json.decode(output)
    assert report["workload"]["name"] == workload
    assert [each["name"] for each in report["servers"]] == ["furiosa-llm", "peer"]
    assert all(len(result["rounds"]) == 2 and not result["failures"] for result in report["results"])
    assert "k3y" not in output
    assert keys(ours) == keys(theirs) == {"Authorization: Bearer k3y"}


def test_servers_take_turns_with_other_prompts_of_the_same_length(bench: Bench) -> None:
    order: list[tuple[str, str]] = []

    def noting(name: str) -> Any:
        def script(body: dict[str, Any]) -> Any:
            order.append((name, body["prompt"]))
            return tokens(body)

        return script

    with scripted_server(noting("ours")) as ours, scripted_server(noting("peer")) as peer:
        bench("latency", ours.url, "--against", peer.url, "--requests", "1")
    assert [name for name, _ in order[2:]] == ["ours", "peer", "ours", "peer"]
    assert len({prompt for _, prompt in order[2:]}) == 4


def test_a_seed_sends_the_same_prompts_to_all_servers_in_each_run(bench: Bench) -> None:
    with scripted_server() as ours, scripted_server() as peer:
        for _ in range(2):
            bench("latency", ours.url, "--against", peer.url, "--seed", "7")
    prompts = [body["prompt"] for body in ours.bodies]
    assert prompts == [body["prompt"] for body in peer.bodies]
    assert prompts[: len(prompts) // 2] == prompts[len(prompts) // 2 :]
    assert len(set(prompts)) == 5  # one to connect, two in each round


def test_the_key_may_come_from_the_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FURIOSA_LLM_API_KEY", "k3y")
    with scripted_server() as server:
        bench("latency", server.url)
    assert keys(server) == {"Authorization: Bearer k3y"}


def test_a_plot_is_drawn(bench: Bench, tmp_path: Path) -> None:
    with scripted_server() as server:
        bench("throughput", server.url, "--plot", str(tmp_path / "a.svg"))
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_without_matplotlib_the_extra_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    bench("throughput", "--plot", str(tmp_path / "a.svg"), status=2)
    assert "--plot needs matplotlib: pip install 'furiosa-llm-server[plot]'" in bench.error


def test_failures_of_some_are_shown(bench: Bench) -> None:
    count = iter(range(100))

    def every_other(body: dict[str, Any]) -> Any:
        return [error_response("500 Oops", "it died")] if next(count) % 2 else tokens(body)

    with scripted_server(every_other) as server:
        output = bench("latency", server.url)
    assert "furiosa-llm, 1 at once: 2 of 4 requests failed: HTTP 500: it died\n" in output


def test_failure_of_all_is_the_exit_status_too(bench: Bench) -> None:
    def only_the_first(body: dict[str, Any]) -> Any:
        return tokens(body) if body["max_tokens"] == 2 else [error_response("500 Oops", "it died")]

    with scripted_server(only_the_first) as server:
        output = bench("latency", server.url, "--tokens", "3", "--json", status=2)
    [result] = msgspec.json.decode(output)["results"]
    assert result["failures"] == {"HTTP 500: it died": 4}
    assert bench.error == f"furiosa-llm: error: furiosa-llm ({server.url}/v1): every request failed\n"


def test_a_server_that_is_not_there_is_one_line(bench: Bench) -> None:
    assert bench("latency", "--against", "x=http://127.0.0.1:1", "http://127.0.0.1:1", status=2) == ""
    assert bench.error == "furiosa-llm: error: furiosa-llm (http://127.0.0.1:1/v1): Connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["throughput", "localhost"], "'localhost' is not [NAME=]URL"),
        (["throughput", "http://a", "--against", "b"], "'b' is not [NAME=]URL"),
        (["throughput", "--against", "http://b", "--against", "http://b"], "two servers are called 'b'"),
        (["throughput", "--concurrency", "1,x"], "'1,x' is not a list such as 1,4,16"),
        (["throughput", "--concurrency", "0"], "'0' is not a list such as 1,4,16"),
        (["throughput", "--plot", "a.pdf"], "must end in .svg or .png"),
        (["latency", "--rounds", "0"], "0 is not in the range x>=1"),
        (["throughtput"], "No such command 'throughtput'"),
    ],
)
def test_a_bad_option_is_one_line(bench: Bench, arguments: list[str], message: str) -> None:
    assert bench(*arguments, status=2) == ""
    [line] = bench.error.splitlines()
    assert message in line
