"""``--models`` and ``--model``: the settings of several models, all validated before anything is loaded."""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from msgspec import Struct
from msgspec.structs import replace

from fllm.config import PluginConfig
from fllm.errors import ConfigError, ConfigErrors, UserError
from fllm.model.source import locate
from fllm.plugins.loader import Plugins
from fllm_api.cli.config_file import option_value
from fllm_api.cli.options import CHAT_OPTIONS, ENGINE_OPTIONS, LORA_OPTIONS, MODEL_OPTIONS, SECONDS
from fllm_api.cli.param_types import LoraModule, Size
from fllm_api.cli.settings import Settings, check_engine_network, settings_from_options

SERVER_OPTIONS = (
    *("enable_runtime_lora_loading", "lora_dir", "enable_lora"),
    *("engine_listen", "engine_advertise", "engine_tls", "engine_certfile", "engine_keyfile"),
)
"""Options of these groups that concern the whole server."""
OWN_KEYS = {
    "name": None,
    "source": None,
    "pin": click.Option(["--pin"], is_flag=True),
    "memory": click.Option(["--memory"], type=Size()),
    "idle_timeout": click.Option(["--idle-timeout"], type=SECONDS),
}
"""Keys of a model that are not options of ``furiosa-llm serve``."""


class ModelEntry(Struct, frozen=True):
    """A model of the list, before its options are validated."""

    name: Any
    source: Any
    options: Mapping[str, Any]
    where: str


def settings_of_models(
    ctx: click.Context, plugins: Plugins, plugins_config: PluginConfig, check: Callable[[Settings], None]
) -> tuple[Settings, ...]:
    """Return the settings of each model: of MODEL, or of those that ``--models`` or ``--model`` list.

    ``check`` validates the settings further. Raise `ConfigErrors` with all errors of a list.
    """
    options = ctx.params
    entries = [*_entries(options)]
    if not entries:
        settings = settings_from_options(options, plugins, plugins_config)
        check(settings)
        check_engine_network([settings])
        names = (settings.server.served_model_name, *settings.server.served_model_aliases)
        if unknown := [*_unknown_pins(options, names)]:
            raise ConfigErrors(unknown)
        return (replace(settings, pinned=bool(options["pin"])),)
    _reject_options_of_one_model(options, entries)
    found: list[Settings] = []
    errors: list[str] = [*_duplicates(entries), *_unknown_pins(options, [each.name for each in entries])]
    for entry in entries:
        try:
            settings = _settings(ctx, entry, plugins, plugins_config)
            check(settings)
            found.append(settings)
        except click.ClickException as error:
            errors.append(f"{entry.where}: {error.format_message()}")
        except UserError as error:
            errors.append(f"{entry.where}: {error.message}")
    errors += _shared_names(found)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    check_engine_network(found)
    return tuple(found)


def _entries(options: Mapping[str, Any]) -> Iterator[ModelEntry]:
    file: Path | None = options["models"]
    sources: Sequence[tuple[str, str]] = options["model_sources"]
    if file is not None:
        if sources:
            raise ConfigError("--models FILE and --model NAME=SOURCE can't be combined")
        yield from _read(file)
    for name, source in sources:
        yield ModelEntry(name, source, {}, f"--model {name}={source}")


def _read(file: Path) -> Iterator[ModelEntry]:
    """Read ``[[models]]`` tables, or ``[models.NAME]`` ones."""
    where = f"--models {file}"
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{where} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    listed = content.pop("models", content.pop("model", None))
    if content:
        raise ConfigError(
            f"{where} has the unknown key {next(iter(content))!r}; it must have [[models]] tables"
        )
    if isinstance(listed, dict):
        listed = [{"name": name, **_table(each, f"{where}: {name}")} for name, each in listed.items()]
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{where} lists no model; it must have [[models]] tables with name and source")
    for number, each in enumerate(listed, 1):
        table = {key.replace("-", "_"): value for key, value in _table(each, where).items()}
        table |= {
            key.replace("-", "_"): value for key, value in _table(table.pop("options", {}), where).items()
        }
        name = table.pop("name", None)
        place = f"{where}: model {name!r}" if isinstance(name, str) else f"{where}: model {number}"
        yield ModelEntry(name, table.pop("source", None), table, place)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r} is not a table")
    return value


def _reject_options_of_one_model(options: Mapping[str, Any], entries: Sequence[ModelEntry]) -> None:
    if options["model"] is not None:
        raise ConfigError(f"MODEL ({options['model']}) can't be combined with --models or --model")
    if options["served_model_name"]:
        raise ConfigError("--served-model-name concerns one model: --models and --model name their own")
    names = [entry.name for entry in entries]
    for module in options["lora_modules"]:
        if len(entries) > 1 and module.base_model_name not in names:
            raise ConfigError(
                f"--lora-modules {module.name}: name the model that the adapter belongs to as its "
                "base_model_name, or put the option into the --models file"
            )


def _duplicates(entries: Sequence[ModelEntry]) -> Iterator[str]:
    named = [entry for entry in entries if isinstance(entry.name, str)]
    names = Counter(entry.name for entry in named)
    yield from (f"{entry.where}: the name is used twice" for entry in named if names[entry.name] > 1)


def _unknown_pins(options: Mapping[str, Any], names: Sequence[Any]) -> Iterator[str]:
    yield from (
        f"--pin {name}: there is no model of this name" for name in options["pin"] if name not in names
    )


def _settings(
    ctx: click.Context, entry: ModelEntry, plugins: Plugins, plugins_config: PluginConfig
) -> Settings:
    """Return the settings of one model. Its own options take precedence over those of the command line."""
    for key in ("name", "source"):
        value = getattr(entry, key)
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{key} is missing" if value is None else f"{key} {value!r} is not a text")
    locate(entry.source)  # whose message then does not say that this is MODEL
    own = _convert(ctx, entry.options)
    adapters: Sequence[LoraModule] = ctx.params["lora_modules"]
    options = {
        **ctx.params,
        "lora_modules": [each for each in adapters if each.base_model_name in (None, entry.name)],
        **own,
        "model": entry.source,
        "served_model_name": (entry.name, *own.get("served_model_name", ())),
    }
    idle_timeout = own.get("idle_timeout")
    return replace(
        settings_from_options(options, plugins, plugins_config),
        pinned=bool(own.get("pin")) or entry.name in ctx.params["pin"],
        memory=own.get("memory"),
        idle_timeout=ctx.params["model_idle_timeout"] if idle_timeout is None else idle_timeout,
    )


def _convert(ctx: click.Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's options as click converts them. Raise `ConfigError` if one is unknown."""
    groups = (*MODEL_OPTIONS, *LORA_OPTIONS, *ENGINE_OPTIONS, *CHAT_OPTIONS)
    known: dict[str, click.Parameter] = {each.name or "": each for each in groups}
    known = {name: each for name, each in known.items() if name not in SERVER_OPTIONS}
    known |= {name: each for name, each in OWN_KEYS.items() if each is not None}
    for key in options:
        if key not in known:
            matches = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {matches[0].replace('_', '-')!r}?" if matches else ""
            raise ConfigError(f"unknown key {key.replace('_', '-')!r}{hint}")
    return {
        key: known[key].process_value(ctx, option_value(value, known[key])) for key, value in options.items()
    }


def _shared_names(models: Sequence[Settings]) -> Iterator[str]:
    """Yield an error for each name that two models, aliases or adapters have."""
    owners: dict[str, list[str]] = {}
    for each in models:
        config, adapters = each.server, each.backend_config.lora_modules
        for name in {config.served_model_name, *config.served_model_aliases, *(one.name for one in adapters)}:
            owners.setdefault(name, []).append(config.served_model_name)
    for name, models_of_name in owners.items():
        if len(set(models_of_name)) > 1:
            yield f"{name!r} is a name of several models: {', '.join(models_of_name)}"
