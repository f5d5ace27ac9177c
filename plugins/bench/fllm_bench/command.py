"""``furiosa-llm bench``: the same load on several servers in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fllm.errors import ConfigError, UserError

if TYPE_CHECKING:
    from fllm_bench.report import Report
    from fllm_bench.target import Target
    from fllm_bench.workload import Workload

POSITIVE = click.IntRange(min=1)
CONTEXT_SETTINGS: dict[str, Any] = {
    "show_default": True,
    "rich_help_config": {
        "options_table_column_types": ["opt_all", "help"],
        "options_table_help_sections": ["help", "metavar", "default"],
    },
}


class IntegerList(click.ParamType[tuple[int, ...]]):
    """Positive integers, separated by commas."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the integers in the given order, without duplicates."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(int(number) for number in str(value).split(",")))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is not a list such as 1,4,16", param, ctx)
        return numbers


class NonEmptyText(click.ParamType[str]):
    """Text that is not blank."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without surrounding whitespace."""
        text = str(value).strip()
        return text or self.fail("it is empty", param, ctx)


_load = partial(click.RichOption, panel="Load", type=POSITIVE)
_comparison = partial(click.RichOption, panel="Comparison")
_request = partial(click.RichOption, panel="Requests")
_output = partial(click.RichOption, panel="Output")

URL = click.RichArgument(
    ["url"],
    required=False,
    default="http://localhost:8000",
    help="Server to compare with the others (http://localhost:8000); NAME=URL gives it a name.",
)
ALWAYS: list[click.Parameter] = [
    URL,
    _comparison(
        ["--against"],
        multiple=True,
        default=(),
        metavar="URL",
        help="Another server, which receives the same load in turn; NAME=URL gives it a name. Repeatable.",
    ),
    _comparison(
        ["--rounds"], type=POSITIVE, default=3, help="Measurements of each server; the medians are reported."
    ),
    _request(["--model"], type=NonEmptyText(), show_default="the first of /v1/models", help="Model name."),
    _request(
        ["--api-key"],
        type=NonEmptyText(),
        envvar="FURIOSA_LLM_API_KEY",
        help="Bearer token for all servers. Environment variable: FURIOSA_LLM_API_KEY.",
    ),
    _request(
        ["--timeout"],
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        help="Seconds until a request fails.",
    ),
    _request(
        ["--seed"],
        type=NonEmptyText(),
        show_default="other prompts each time",
        help="Send the same prompts to all servers, and in each run with this seed.",
    ),
    _output(["--json", "as_json"], is_flag=True, help="Print only JSON on stdout."),
]
COMMON: list[click.Parameter] = [
    *ALWAYS,
    _request(["--chat"], is_flag=True, help="Send chat completions instead of completions."),
]


def _concurrency(default: str) -> click.Option:
    return _load(["--concurrency"], type=IntegerList(), default=default, help="Concurrent requests.")


def _requests(default: int, help: str = "Requests per measurement.") -> click.Option:
    return _load(["--requests"], default=default, help=help)


def _words(default: int, help: str = "Words per prompt; about as many tokens.") -> click.Option:
    return _load(["--words"], default=default, help=help)


TOKENS = _load(["--tokens"], default=64, help="Tokens per response; exact if the server supports it.")


class OrderedGroup(click.RichGroup):
    """Lists its commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names unsorted."""
        return list(self.commands)


@click.group("bench", cls=OrderedGroup, context_settings=CONTEXT_SETTINGS)
def bench() -> None:
    """Measure this server and other OpenAI-compatible servers in turn."""


@bench.command(
    "throughput",
    params=[
        *COMMON,
        _concurrency("1,4,16"),
        _requests(16, "Requests per measurement; at least the concurrency."),
        _words(64),
        TOKENS,
        _output(
            ["--plot"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Plot throughput and latency against concurrency to an .svg or .png file.",
        ),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def throughput(
    concurrency: tuple[int, ...], requests: int, words: int, tokens: int, plot: Path | None, **options: Any
) -> None:
    """Measure output tokens per second and latencies at each concurrency."""
    from fllm_bench.plot import check_plot, draw_plot
    from fllm_bench.throughput import Throughput

    if plot is not None:
        check_plot(plot)
    workload = Throughput(concurrencies=concurrency, requests=requests, words=words, tokens=tokens)
    report = _measure(workload, **options)
    if plot is not None:
        draw_plot(report, plot)


@bench.command(
    "latency",
    params=[
        *COMMON,
        _requests(32),
        _words(64),
        TOKENS,
        _load(["--stream/--no-stream"], type=bool, default=True, help="Responses token by token, or whole."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def latency(requests: int, words: int, tokens: int, stream: bool, **options: Any) -> None:
    """Measure the latency for one user, with one request after another."""
    from fllm_bench.latency import Latency

    _measure(Latency(requests=requests, words=words, tokens=tokens, stream=stream), **options)


@bench.command(
    "prefill",
    params=[*COMMON, _concurrency("1"), _requests(8), _words(512)],
    context_settings=CONTEXT_SETTINGS,
)
def prefill(concurrency: tuple[int, ...], requests: int, words: int, **options: Any) -> None:
    """Measure prompt tokens per second, with uncached prompts."""
    from fllm_bench.prefill import Prefill

    _measure(Prefill(concurrencies=concurrency, requests=requests, words=words), **options)


@bench.command(
    "prefix",
    params=[
        *COMMON,
        _requests(8, "Pairs of requests per measurement."),
        _load(["--prefix-words"], default=1000, help="Words that a pair shares; about as many tokens."),
        _words(32, "Words of each prompt after the shared ones."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def prefix(requests: int, prefix_words: int, words: int, **options: Any) -> None:
    """Measure the time to first token with and without a cached prompt prefix."""
    from fllm_bench.prefix import Prefix

    _measure(Prefix(requests=requests, prefix_words=prefix_words, words=words), **options)


@bench.command(
    "interference",
    params=[
        *COMMON,
        _requests(32, "Short requests per measurement before the long one."),
        _words(32, "Words per short prompt; about as many tokens."),
        _load(["--long-words"], default=4000, help="Words of the long prompt; about as many tokens."),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def interference(requests: int, words: int, long_words: int, **options: Any) -> None:
    """Measure the latency of short requests during the prefill of a long prompt."""
    from fllm_bench.interference import Interference

    _measure(Interference(requests=requests, words=words, long_words=long_words), **options)


@bench.command(
    "agents",
    params=[
        *ALWAYS,
        _load(["--concurrency"], type=IntegerList(), default="4", help="Agents at once."),
        _load(["--turns"], default=10, help="Requests of each agent, one after another."),
        _load(
            ["--prefix-tokens"],
            default=4000,
            help="Tokens of each first prompt, with system prompt and tools.",
        ),
        _load(
            ["--growth-tokens"],
            default=200,
            help="Tokens that a turn adds to the prompt: an answer, a tool's result.",
        ),
        TOKENS,
        _load(
            ["--own-prefix"],
            type=bool,
            is_flag=True,
            help="A system prompt for each agent; else all share one.",
        ),
    ],
    context_settings=CONTEXT_SETTINGS,
)
def agents(
    concurrency: tuple[int, ...],
    turns: int,
    prefix_tokens: int,
    growth_tokens: int,
    tokens: int,
    own_prefix: bool,
    **options: Any,
) -> None:
    """Measure agents' conversations with tools, whose long prompts grow turn by turn."""
    from fllm_bench.agents import Agents

    workload = Agents(
        concurrencies=concurrency,
        turns=turns,
        prefix_tokens=prefix_tokens,
        growth_tokens=growth_tokens,
        tokens=tokens,
        own_prefix=own_prefix,
    )
    _measure(workload, chat=True, **options)


@bench.command(
    "long-context",
    params=[
        *COMMON,
        _concurrency("1"),
        _requests(1),
        _load(["--context"], default=7000, help="Tokens of each prompt."),
        TOKENS,
    ],
    context_settings=CONTEXT_SETTINGS,
)
def long_context(
    concurrency: tuple[int, ...], requests: int, context: int, tokens: int, **options: Any
) -> None:
    """Measure the time to the first token of a long prompt, then the time per token."""
    from fllm_bench.long_context import LongContext

    _measure(
        LongContext(concurrencies=concurrency, requests=requests, context=context, tokens=tokens), **options
    )


def _measure(
    workload: Workload,
    *,
    url: str,
    against: Sequence[str],
    rounds: int,
    seed: str | None,
    as_json: bool,
    **options: Any,
) -> Report:
    """Measure and print; raise `UserError` if every request to a server failed."""
    import asyncio

    from rich.console import Console

    from fllm_bench.comparison import compare
    from fllm_bench.target import RequestOptions

    targets = _targets(url, against)
    with Console(stderr=True).status("") as status, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        measured = compare(
            workload,
            targets,
            RequestOptions(**options),
            rounds=rounds,
            show_progress=status.update,
            seed=seed,
        )
        report = runner.run(measured)
    _print(report, as_json=as_json)
    for target in targets:
        if not any(result.completions for result in report.results_of(target.name)):
            raise UserError(f"{target.name} ({target.url}): every request failed")
    return report


def _loop_factory() -> Any:
    import uvloop

    return uvloop.new_event_loop


def _targets(url: str, against: Sequence[str]) -> list[Target]:
    from fllm_bench.target import parse_target

    targets = [parse_target(url, "furiosa-llm"), *map(parse_target, against)]
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two servers are called {name!r}: give them names, as in a={targets[0].url}")
    return targets


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report)))
        return

    from rich.console import Console

    from fllm_bench.table import format_table, notes

    console = Console()
    console.print(format_table(report))
    for line in notes(report):
        console.print(line, markup=False, highlight=False)
