"""``--config``: read options from a TOML file. The command line and the environment take precedence."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import rich_click as click

from fllm_api.cli.param_types import Json, LoraModules


def read_config(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
    """Use the values of the file as defaults of the command's options."""
    if file is None:
        return None
    known = {name: each for each in ctx.command.params if (name := each.name) and name != param.name}
    values = {key.replace("-", "_"): value for key, value in _read(file, param, ctx).items()}
    for key in values.keys() - known.keys():
        matches = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(sorted(known))}"
        raise click.BadParameter(f"{str(file)!r} has the unknown key {key!r}; {hint}", ctx, param)
    ctx.default_map = {key: option_value(value, known[key]) for key, value in values.items()}
    return file


def _read(file: Path, param: click.Parameter, ctx: click.Context) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{str(file)!r} can't be read: {error.strerror}", ctx, param) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{str(file)!r} is not TOML: {error}", ctx, param) from error


def option_value(value: Any, param: click.Parameter) -> Any:
    """Return a value of a file as the type of an option converts it: as text, unless the type is JSON.

    An option that may be repeated has a list; a table of it becomes a list of ``KEY=VALUE``.
    """
    if not getattr(param, "multiple", False):
        return _text_or_json(value, param)
    if isinstance(value, dict):
        return [f"{key}={each}" for key, each in value.items()]
    return [_text_or_json(each, param) for each in (value if isinstance(value, list) else [value])]


def _text_or_json(value: Any, param: click.Parameter) -> Any:
    return value if isinstance(param.type, Json | LoraModules) else str(value)
