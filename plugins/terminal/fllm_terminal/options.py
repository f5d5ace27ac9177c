"""The options that ``chat`` and ``run`` share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from msgspec import UNSET, Struct

from fllm.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)


class ChatOptions(Struct, kw_only=True):
    """The values of the shared options."""

    api_key: str | None
    serve_options: str
    served_model: str | None
    system: str
    tools: Path | None
    schema: Path | None
    image: tuple[Path, ...]
    sampling: dict[str, Any]


def chat_options(command: Command) -> Command:
    """Add the shared options to a command. It receives them as keyword arguments for `read_options`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_options(**values: Any) -> ChatOptions:
    """Return the values of the options."""
    named = {name: values.pop(name) for name in ("api_key", "serve_options", "served_model", "system")}
    files = {name: values.pop(name) for name in ("tools", "schema", "image")}
    sampling = {name: UNSET if value is None else value for name, value in values.items()}
    return ChatOptions(**named, **files, sampling=sampling)


def split_serve_options(text: str) -> list[str]:
    """Return the options of ``furiosa-llm serve`` in a text. Raise `ConfigError` if a quote has no end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--serve-options: {error}") from error


_OPTIONS = [
    click.option(
        "--api-key",
        envvar=["FURIOSA_LLM_API_KEY", "OPENAI_API_KEY"],
        show_envvar=True,
        help="A key of the server at a URL.",
    ),
    click.option(
        "--served-model", metavar="NAME", help="Model of the server at a URL; its first by default."
    ),
    click.option(
        "--serve-options",
        default="",
        metavar="TEXT",
        help='Options of `furiosa-llm serve` for a MODEL, such as "--max-model-len 2048".',
    ),
    click.option("--system", default="", metavar="TEXT", help="System prompt."),
    click.option("--tools", type=_FILE, help="JSON file with the functions that the model may call."),
    click.option("--schema", type=_FILE, help="File with a JSON Schema that each answer follows."),
    click.option("--image", type=_FILE, multiple=True, help="Image to send with the (first) message."),
    click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest token."),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True)),
    click.option("--top-k", type=int),
    click.option("--min-p", type=click.FloatRange(0, 1)),
    click.option("--repetition-penalty", type=click.FloatRange(min=0, min_open=True)),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum of tokens of each answer."),
    click.option("--seed", type=int, help="The same seed and settings give the same answer."),
]
