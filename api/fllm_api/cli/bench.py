"""``furiosa-llm bench``: the same load on this server and on others, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fllm.errors import ConfigError, UserError
from fllm_api.cli.options import POSITIVE
from fllm_api.cli.param_types import NonEmptyText

if TYPE_CHECKING:
    from fllm_api.bench.report import Report
    from fllm_api.bench.server import Server
    from fllm_api.bench.workload import Workload

CONTEXT_SETTINGS: dict[str, Any] = {
    "show_default": True,
    "rich_help_config": {
        "options_table_column_types": ["opt_all", "help"],
        "options_table_help_sections": ["help", "metavar", "default"],
    },
}


class Numbers(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers, separated by commas."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """In the order given, each once."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(int(number) for number in str(value).split(",")))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is not a list such as 1,4,16", param, ctx)
        return numbers


_load = partial(click.RichOption, panel="Load", type=POSITIVE)
_comparison = partial(click.RichOption, panel="Comparison")
_request = partial(click.RichOption, panel="Requests")
_output = partial(click.RichOption, panel="Output")

URL = click.RichArgument(
    ["url"],
    required=False,
    default="http://localhost:8000",
    help="The server that is compared with the others (http://localhost:8000); NAME=URL names it.",
)
COMMON: list[click.Parameter] = [
    URL,
    _comparison(
        ["--against"],
        multiple=True,
        default=(),
        metavar="URL",
        help="A peer, which gets the same load in turn; NAME=URL names it. May be given again.",
    ),
    _comparison(["--rounds"], type=POSITIVE, default=3, help="How often each is measured; medians are told."),
    _request(["--chat"], is_flag=True, help="Chat completions instead of completions."),
    _request(
        ["--model"], type=NonEmptyText(), show_default="the first of /v1/models", help="Name in requests."
    ),
    _request(
        ["--api-key"],
        type=NonEmptyText(),
        envvar="FURIOSA_LLM_API_KEY",
        help="Bearer token, for all of the servers; FURIOSA_LLM_API_KEY holds it too.",
    ),
    _request(
        ["--timeout"],
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        help="Seconds for a request.",
    ),
    _output(["--json", "as_json"], is_flag=True, help="Print JSON, and nothing else, on stdout."),
]


def _concurrency(default: str) -> click.Option:
    return _load(["--concurrency"], type=Numbers(), default=default, help="Requests under way at once.")


def _requests(default: int, help: str = "In each measurement.") -> click.Option:
    return _load(["--requests"], default=default, help=help)


def _words(default: int, help: str = "Of each prompt; about as many tokens.") -> click.Option:
    return _load(["--words"], default=default, help=help)


TOKENS = _load(["--tokens"], default=64, help="Of each answer; exactly, where the server can be told so.")


class InOrder(click.RichGroup):
    """Lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """By name, they would tell no story."""
        return list(self.commands)


@click.group("bench", cls=InOrder, context_settings=CONTEXT_SETTINGS)
def bench() -> None:
    """Measure servers that speak OpenAI's API: this one, and others in turn."""


@bench.command(
    "throughput",
    params=[
        *COMMON,
        _concurrency("1,4,16"),
        _requests(16, "In each measurement; at least as many as at once."),
        _words(64),
        TOKENS,
        _output(
            ["--plot"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Draw throughput and latency against concurrency: an .svg or .png file.",
        ),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def throughput(
    concurrency: tuple[int, ...], requests: int, words: int, tokens: int, plot: Path | None, **options: Any
) -> None:
    """Output tokens per second, and latencies, with so many requests at once."""
    from fllm_api.bench.plot import check_plot, draw
    from fllm_api.bench.throughput import Throughput

    if plot is not None:
        check_plot(plot)
    workload = Throughput(concurrencies=concurrency, requests=requests, words=words, tokens=tokens)
    report = _measure(workload, **options)
    if plot is not None:
        draw(report, plot)


@bench.command(
    "latency",
    params=[
        *COMMON,
        _requests(32),
        _words(64),
        TOKENS,
        _load(["--stream/--no-stream"], type=bool, default=True, help="Answers token by token, or whole."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def latency(requests: int, words: int, tokens: int, stream: bool, **options: Any) -> None:
    """How long one user waits, with one request after another."""
    from fllm_api.bench.latency import Latency

    _measure(Latency(requests=requests, words=words, tokens=tokens, stream=stream), **options)


@bench.command(
    "prefill",
    params=[*COMMON, _concurrency("1"), _requests(8), _words(512)],
    context_settings=CONTEXT_SETTINGS,
)
def prefill(concurrency: tuple[int, ...], requests: int, words: int, **options: Any) -> None:
    """Prompt tokens per second, with prompts that no cache knows."""
    from fllm_api.bench.prefill import Prefill

    _measure(Prefill(concurrencies=concurrency, requests=requests, words=words), **options)


@bench.command(
    "prefix",
    params=[
        *COMMON,
        _requests(8, "Pairs of requests in each measurement."),
        _load(
            ["--prefix-words"], default=1000, help="That the prompts of a pair share; about as many tokens."
        ),
        _words(32, "Of each prompt's own, after the shared ones."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def prefix(requests: int, prefix_words: int, words: int, **options: Any) -> None:
    """What it saves that a prompt begins as an earlier one."""
    from fllm_api.bench.prefix import Prefix

    _measure(Prefix(requests=requests, prefix_words=prefix_words, words=words), **options)


@bench.command(
    "interference",
    params=[
        *COMMON,
        _requests(32, "Short ones in each measurement, before the long one."),
        _words(32, "Of each short prompt; about as many tokens."),
        _load(["--long-words"], default=4000, help="Of the long prompt; about as many tokens."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def interference(requests: int, words: int, long_words: int, **options: Any) -> None:
    """What short requests suffer while a long prompt is being prefilled."""
    from fllm_api.bench.interference import Interference

    _measure(Interference(requests=requests, words=words, long_words=long_words), **options)


def _measure(
    workload: Workload,
    *,
    url: str,
    against: Sequence[str],
    rounds: int,
    as_json: bool,
    **manner: Any,
) -> Report:
    """Measure and print; raises `UserError` where a server did not answer a single request."""
    import asyncio

    from rich.console import Console

    from fllm_api.bench.rounds import compare
    from fllm_api.bench.server import Manner
    from fllm_api.cli.event_loop import loop_factory

    servers = _servers(url, against)
    with Console(stderr=True).status("") as status, asyncio.Runner(loop_factory=loop_factory()) as runner:
        report = runner.run(compare(workload, servers, Manner(**manner), rounds=rounds, tell=status.update))
    _print(report, as_json=as_json)
    for each in servers:
        if not any(result.answers for result in report.of(each.name)):
            raise UserError(f"{each.name} ({each.url}): every request failed")
    return report


def _servers(url: str, against: Sequence[str]) -> list[Server]:
    from fllm_api.bench.server import parse_server

    servers = [parse_server(url, "furiosa-llm"), *map(parse_server, against)]
    names = [each.name for each in servers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two servers are called {name!r}: name them, as in a={servers[0].url}")
    return servers


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report)))
        return

    from rich.console import Console

    from fllm_api.bench.table import remarks, table

    console = Console()
    console.print(table(report))
    for line in remarks(report):
        console.print(line, markup=False, highlight=False)
