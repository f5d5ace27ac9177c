"""``--config``: read options from a TOML file. The command line and the environment take precedence."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import rich_click as click

from fllm_api.cli.loaded_plugins import OPTION_TABLES
from fllm_api.cli.param_types import Json, LoraModules

CONFIG_FILE = "fllm.config_file"
"""Key of ``click.Context.meta``: the file, of a command that serves nothing."""
OF_PLUGIN_COMMANDS = frozenset(("index", "pip_args"))
"""Keys that only commands of ``furiosa-llm plugins`` read; one file is for all commands."""
PLUGINS = "plugins"
"""Key of the tables with the options of plugins, ``[plugins.NAME]``."""


def read_config(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
    """Use the values of the file as defaults of the command's options, and for options of plugins."""
    if file is None:
        return None
    known = _known(ctx, param)
    values = _values(file, param, ctx)
    for key in values.keys() - known.keys() - OF_PLUGIN_COMMANDS:
        names = [*known, PLUGINS]
        matches = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(sorted(names))}"
        raise click.BadParameter(f"{str(file)!r} has the unknown key {key!r}; {hint}", ctx, param)
    ctx.default_map = {key: option_value(value, known[key]) for key, value in values.items() if key in known}
    return file


def read_plugins_config(ctx: click.Context, param: click.Parameter, file: Path | None) -> None:
    """Do the same for a command that serves nothing, and ignore options that it does not have."""
    if file is not None:
        ctx.meta[CONFIG_FILE] = file
        known = _known(ctx, param)
        values = _values(file, param, ctx)
        ctx.default_map = {key: option_value(values[key], known[key]) for key in values.keys() & known.keys()}


def _known(ctx: click.Context, param: click.Parameter) -> dict[str, click.Parameter]:
    """Return the options that the file may set, by name."""
    params = (each for each in ctx.command.params if each.expose_value)
    return {name: each for each in params if (name := each.name) and name != param.name}


def _values(file: Path, param: click.Parameter, ctx: click.Context) -> dict[str, Any]:
    """Return the values of the file by the names of options, and keep its tables for plugins."""
    values = {key.replace("-", "_"): value for key, value in _read(file, param, ctx).items()}
    tables = values.pop(PLUGINS, {})
    if isinstance(values.get("plugin"), dict):  # whose values may be secrets
        raise click.BadParameter(f"{str(file)!r}: write [plugins.NAME], not [plugin.NAME]", ctx, param)
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise click.BadParameter(f"{str(file)!r}: {PLUGINS} must be tables [plugins.NAME]", ctx, param)
    ctx.meta[OPTION_TABLES] = tables
    return values


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
