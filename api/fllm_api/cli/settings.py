"""From options to the Structs of the rooms, with the checks that span several options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from fllm.config import BackendConfig, Device, MetricsConfig, PluginConfig
from fllm.errors import ConfigError, ModelError
from fllm.interfaces import BackendFactory
from fllm.model.source import ModelSource, locate
from fllm.plugins.backend_options import backend_options
from fllm.plugins.loader import Plugins
from fllm.plugins.registry import BackendEntry, Registry
from fllm_api.api_keys import Keys
from fllm_api.cli.options import NO_GRAMMAR
from fllm_api.cli.parser_selection import load_possible_parsers
from fllm_api.config import ClientLimits, ServerConfig

S = TypeVar("S", bound=Struct)

ENGINE_PROCESS = "process"
"""The backend that holds another one in a process of its own."""

DTYPE_ALIASES = {"half": "float16", "float": "float32"}


class Settings(Struct, frozen=True, kw_only=True):
    """All that ``furiosa-llm serve`` was told, checked."""

    backend: str
    """Name of the outermost backend; `BackendConfig.chain` names those inside."""
    backend_config: BackendConfig
    plugin_config: PluginConfig
    metrics: MetricsConfig
    server: ServerConfig
    shutdown_timeout: float
    """Seconds for the requests in flight, once a signal has come."""


def settings_from_options(
    options: Mapping[str, Any], plugins: Plugins, plugin_config: PluginConfig
) -> Settings:
    """Check and divide the options; raises `UserError` that names the option."""
    _check_switches(options, plugins)
    source = _located(options["model"])
    _check_revision(options["revision"], source)
    wanted = options["devices"] or ()
    chosen = choose_backend(plugins.backends, options["backend"], wanted)
    _check_options(plugins.backends, chosen, dict(options["backend_option"]))
    backend, *chain = _with_process(chosen, plugins.backends, wanted=options["engine_process"])
    return Settings(
        backend=backend,
        backend_config=_struct(
            BackendConfig,
            options,
            model=source.location,
            devices=wanted,
            chain=tuple(chain),
            options=dict(options["backend_option"]),
            dtype=DTYPE_ALIASES.get(options["dtype"], options["dtype"]),
            grammar=None if options["grammar_backend"] == NO_GRAMMAR else options["grammar_backend"],
            visible_tokens=_visible_tokens(options, plugins),
        ),
        plugin_config=plugin_config,
        metrics=_struct(
            MetricsConfig,
            options,
            enabled=options["enable_metrics"],
            log_stats=not options["disable_log_stats"],
            compat=options["metrics_compat"],
        ),
        server=_struct(
            ServerConfig,
            options,
            served_model_name=options["served_model_name"] or source.name,
            keys=_keys(options),
            allowed_origins=tuple(options["allowed_origins"] or ()),
            limits=_limits(options["limit"]),
            default_chat_template_kwargs=options["default_chat_template_kwargs"] or {},
        ),
        shutdown_timeout=options["shutdown_timeout"],
    )


def choose_backend(backends: Registry[BackendFactory], name: str | None, devices: tuple[Device, ...]) -> str:
    """The backend of that name, or the only one that serves these devices; without any, a cpu or a cuda."""
    served = _served(backends)
    if name is not None:
        _check_named(name, {device.kind for device in devices}, served)
        return name
    kinds = {device.kind for device in devices} or {"cpu", "cuda"}
    wanted = " or ".join(sorted(kinds))
    fit = [name for name, serves in served.items() if kinds & set(serves)]
    if not fit:
        raise ConfigError(f"--devices: no backend serves {wanted} ({_listed(served)})")
    if len(fit) > 1:
        raise ConfigError(f"several backends serve {wanted}: choose --backend {' or '.join(fit)}")
    return fit[0]


def _check_named(name: str, kinds: set[str], served: Mapping[str, tuple[str, ...]]) -> None:
    if name == ENGINE_PROCESS:
        raise ConfigError(f"--backend {name} only holds another: name that one ({_listed(served)})")
    if served.get(name) and not kinds <= set(served[name]):
        raise ConfigError(f"--backend {name} does not serve {', '.join(kinds)} ({_listed(served)})")


def _check_options(backends: Registry[BackendFactory], name: str, given: Mapping[str, str]) -> None:
    """Where the backend declares its options, they are checked before it is imported."""
    entry = backends.entry(name)
    if isinstance(entry, BackendEntry) and entry.options is not None:
        backend_options(given, entry.options)


def _served(backends: Registry[BackendFactory]) -> dict[str, tuple[str, ...]]:
    entries = (registration.entry for registration in backends)
    return {entry.name: entry.devices for entry in entries if isinstance(entry, BackendEntry)}


def _listed(served: Mapping[str, tuple[str, ...]]) -> str:
    found = [f"{name} serves {', '.join(serves)}" for name, serves in served.items() if serves]
    return f"backends: {'; '.join(found) or 'none'}"


def _with_process(name: str, backends: Registry[BackendFactory], *, wanted: bool) -> list[str]:
    entry = backends.entry(name)
    isolated = isinstance(entry, BackendEntry) and entry.isolated
    return [ENGINE_PROCESS, name] if wanted and isolated and ENGINE_PROCESS in backends.names() else [name]


def _visible_tokens(options: Mapping[str, Any], plugins: Plugins) -> tuple[str, ...]:
    """The special tokens that the chosen parsers read."""
    parsers = [
        *load_possible_parsers(plugins.tool_parsers, options["tool_call_parser"]),
        *load_possible_parsers(plugins.reasoning_parsers, options["reasoning_parser"]),
    ]
    return tuple(dict.fromkeys(token for parser in parsers for token in parser.visible_tokens))


def _check_switches(options: Mapping[str, Any], plugins: Plugins) -> None:
    """A switch that only says that there is a parser needs one."""
    pairs: tuple[tuple[str, str, Registry[Any]], ...] = (
        ("enable_auto_tool_choice", "tool_call_parser", plugins.tool_parsers),
        ("enable_reasoning", "reasoning_parser", plugins.reasoning_parsers),
    )
    for switch, parser, registry in pairs:
        if options[switch] and options[parser] is None:
            registered = ", ".join(registry.names()) or "none"
            raise ConfigError(f"{_flag(switch)} needs {_flag(parser)} NAME (registered: {registered})")


def _located(model: str | None) -> ModelSource:
    try:
        return locate(model)
    except ModelError as error:
        raise ModelError(error.message if model is None else f"MODEL: {error.message}") from error


def _check_revision(revision: str | None, source: ModelSource) -> None:
    if revision is not None and source.kind != "hub":
        raise ConfigError(
            f"--revision {revision} is for a model on the Hub, and {source.location!r} is local"
        )


def _keys(options: Mapping[str, Any]) -> Keys:
    keys: Keys = options["api_key"]
    if options["api_key_file"] is not None:
        keys.watch(options["api_key_file"])
    return keys


def _limits(given: Iterable[tuple[str, str]]) -> ClientLimits:
    try:
        return msgspec.convert(dict(given), ClientLimits, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"--limit: {error}; known: {', '.join(ClientLimits.__struct_encode_fields__)}"
        ) from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _struct(kind: type[S], given: Mapping[str, Any], /, **values: Any) -> S:
    """Fill the fields that bear the names of options, where those are given; the rest as said."""
    same = {name: given[name] for name in kind.__struct_fields__ if given.get(name) is not None}
    return kind(**{**same, **values})
