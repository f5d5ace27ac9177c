"""Convert options into configuration Structs, with checks that involve several options."""

from __future__ import annotations

import itertools
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from fllm.config import (
    Autoscaling,
    BackendConfig,
    Device,
    EngineNetwork,
    MetricsConfig,
    PluginConfig,
)
from fllm.errors import ConfigError, ModelError
from fllm.extras import missing_modules
from fllm.interfaces import BackendFactory
from fllm.model.source import INSTALL_EMBEDDED, ModelSource, embedded_is_installed, locate
from fllm.placement import PlacementFactory
from fllm.plugins.loader import Plugins
from fllm.plugins.options import backend_options, placement_options
from fllm.plugins.parser_detection import NO_PARSER
from fllm.plugins.registry import BackendEntry, Entry, PlacementEntry, Registry
from fllm.structured_output.interfaces import GrammarFactory
from fllm.values import SamplingDefaults
from fllm_api.api_keys import ApiKeys
from fllm_api.cli.limit_settings import check_owners, client_limits, max_body_memory
from fllm_api.cli.lora_settings import lora_adapters, lora_dirs
from fllm_api.cli.options import DEFAULT_GRAMMAR, NO_GRAMMAR
from fllm_api.cli.param_types import MODEL_SAMPLING
from fllm_api.cli.parser_selection import load_possible_parsers
from fllm_api.cli.speculation_settings import check_speculation
from fllm_api.config import MAX_IMAGES, ServerConfig
from fllm_api.data_dir import default_data_dir
from fllm_api.record_config import RecordConfig, open_private
from fllm_api.tls import ServerTls, TlsFiles
from fllm_api.trusted_proxies import TrustedProxies

S = TypeVar("S", bound=Struct)

ENGINE_PROCESS = "process"
"""Name of the backend that runs another backend in a child process."""
REPLICAS = "replicas"
"""Name of the backend that divides requests among several engines."""

LOCAL = "local"
"""Name of the placement on this machine."""

DTYPE_ALIASES = {"half": "float16", "float": "float32"}


class Settings(Struct, frozen=True, kw_only=True):
    """Validated settings of ``furiosa-llm serve``."""

    backend: str
    """Name of the outermost backend. `BackendConfig.chain` names the backends that it wraps."""
    backend_config: BackendConfig
    plugin_config: PluginConfig
    metrics: MetricsConfig
    server: ServerConfig
    engine_network: EngineNetwork
    sampling: SamplingDefaults | None = None
    """Sampling defaults of requests; ``None``: those of the model's ``generation_config.json``."""
    sampling_overrides: SamplingDefaults = SamplingDefaults()
    """Sampling defaults that take precedence over these."""
    shutdown_timeout: float
    """Seconds that requests in flight may take after a signal."""
    pinned: bool = False
    """Whether the model stays loaded, whatever else needs the memory."""
    memory: int | None = None
    """Bytes that the model is expected to occupy; ``None``: estimated from its files."""
    idle_timeout: float = 0.0
    """Seconds without a request after which the model is unloaded; 0 means never."""


def settings_from_options(
    options: Mapping[str, Any], plugins: Plugins, plugin_config: PluginConfig
) -> Settings:
    """Return validated settings. Raise `UserError` that names the invalid option."""
    _check_implied_flags(options, plugins)
    keys = _keys(options)
    if options["prefix_cache_isolation"] == "key" and not keys.required:
        raise ConfigError(
            "--prefix-cache-isolation key requires API keys (--api-key-file, --api-key): "
            "an address does not identify a client"
        )
    _check_offload(options)
    devices = options["devices"] or ()
    inner = choose_backend(plugins.backends, options["backend"], devices)
    _require_extras(plugins, inner, options)
    source = _locate_model(options["model"])
    _check_revision(options["revision"], source)
    names = list(dict.fromkeys(options["served_model_name"] or (source.name,)))
    _check_backend_options(plugins.backends, inner, dict(options["backend_option"]))
    _check_division(plugins.backends, inner, options["tensor_parallel_size"])
    adapters = lora_adapters(options, names)
    autoscaling = _autoscaling(options)
    limits = client_limits(options["limit"])
    check_owners(limits.keys() - {""}, options)
    backend, *chain = _wrap_backend(inner, plugins.backends, options)
    check_speculation(options["speculative_config"], plugins.drafters, is_local=options["placement"] == LOCAL)
    _check_placement(plugins.placements, options, has_process=ENGINE_PROCESS in (backend, *chain))
    return Settings(
        backend=backend,
        backend_config=_fill_struct(
            BackendConfig,
            options,
            model=source.location,
            devices=devices,
            chain=tuple(chain),
            options=dict(options["backend_option"]),
            placement_options=_placement_values(options),
            replicas=max(options["replicas"], autoscaling.min_replicas if autoscaling else 1),
            autoscaling=autoscaling,
            enable_lora=bool(adapters or options["enable_lora"] or options["enable_runtime_lora_loading"]),
            lora_modules=adapters,
            dtype=DTYPE_ALIASES.get(options["dtype"], options["dtype"]),
            grammar=_grammar(options, plugins.grammars),
            visible_tokens=_visible_tokens(options, plugins),
        ),
        plugin_config=plugin_config,
        metrics=_fill_struct(
            MetricsConfig,
            options,
            enabled=options["enable_metrics"],
            log_stats=not options["disable_log_stats"],
            compat=options["metrics_compat"],
        ),
        server=_fill_struct(
            ServerConfig,
            options,
            served_model_name=names[0],
            served_model_aliases=tuple(names[1:]),
            keys=keys,
            admin_keys=options["admin_key"] if options["admin_key"].required else None,
            allowed_origins=tuple(dict.fromkeys(itertools.chain(*options["allowed_origins"]))),
            allowed_media_domains=tuple(host.lower() for host in options["allowed_media_domains"]),
            max_images=(options["limit_mm_per_prompt"] or {}).get("image", MAX_IMAGES),
            shared_prefixes=options["shared_prefix"],
            data_dir=options["data_dir"] or default_data_dir(),
            lora_dirs=lora_dirs(options),
            limits=limits.pop(""),
            owner_limits=limits,
            record=_record(options),
            tls=_tls(options),
            trusted_proxies=_trusted_proxies(options["trusted_proxies"]),
            max_body_memory=max_body_memory(options["max_body_memory"], options["max_body_bytes"]),
            default_chat_template_kwargs=options["default_chat_template_kwargs"] or {},
            tool_call_parser=_parser(options["tool_call_parser"]),
            reasoning_parser=_parser(options["reasoning_parser"]),
        ),
        engine_network=_engine_network(options),
        sampling=_sampling(options, source, plugins.backends.entry(inner)),
        sampling_overrides=options["override_generation_config"] or SamplingDefaults(),
        shutdown_timeout=options["shutdown_timeout"],
        idle_timeout=options["model_idle_timeout"],
    )


def choose_backend(backends: Registry[BackendFactory], name: str | None, devices: tuple[Device, ...]) -> str:
    """Return the named backend, or the only one that supports the devices. Default devices: cpu or cuda.

    Raise `ConfigError` if no backend, or several, support them.
    """
    supported = _devices_by_backend(backends)
    if name is not None:
        _check_backend(name, {device.kind for device in devices}, supported)
        return name
    kinds = {device.kind for device in devices} or {"cpu", "cuda"}
    requested = " or ".join(sorted(kinds))
    matches = [name for name, supports in supported.items() if kinds & set(supports)]
    if not matches:
        raise ConfigError(f"--devices: no backend supports {requested} ({_format_backends(supported)})")
    if len(matches) > 1:
        raise ConfigError(
            f"several backends support {requested}: select one with --backend {' or '.join(matches)}"
        )
    return matches[0]


def _require_extras(plugins: Plugins, backend: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the backend, if it runs here, or the placement needs a missing extra."""
    if options["placement"] != LOCAL:
        plugins.placements.require_extra(options["placement"])
        return
    try:
        plugins.backends.require_extra(backend)
    except ConfigError as error:
        if options["model"] is None and not embedded_is_installed():
            raise ConfigError(f"{error.message} && {INSTALL_EMBEDDED}") from error
        raise


def _grammar(options: Mapping[str, Any], grammars: Registry[GrammarFactory]) -> str | None:
    """Return the name of the grammar backend; without a name the default one, if its extra is installed.

    Raise `ConfigError` if the extra of a named one is not installed. Engines elsewhere check theirs.
    """
    name, is_local = options["grammar_backend"], options["placement"] == LOCAL
    if name == NO_GRAMMAR:
        return None
    if name is None:
        is_missing = is_local and missing_modules(grammars.entry(DEFAULT_GRAMMAR).extra)
        return None if is_missing else DEFAULT_GRAMMAR
    if is_local:
        grammars.require_extra(name)
    return str(name)


def _check_backend(name: str, kinds: set[str], supported: Mapping[str, tuple[str, ...]]) -> None:
    if name in (ENGINE_PROCESS, REPLICAS):
        raise ConfigError(
            f"--backend {name} only runs another backend: name that one ({_format_backends(supported)})"
        )
    if supported.get(name) and not kinds <= set(supported[name]):
        raise ConfigError(
            f"--backend {name} does not support {', '.join(kinds)} ({_format_backends(supported)})"
        )


def _check_backend_options(backends: Registry[BackendFactory], name: str, values: Mapping[str, str]) -> None:
    """Validate the backend's options before it is imported, if it declares them."""
    entry = backends.entry(name)
    if isinstance(entry, BackendEntry) and entry.options is not None:
        backend_options(values, entry.options)


def _check_placement(
    placements: Registry[PlacementFactory], options: Mapping[str, Any], *, has_process: bool
) -> None:
    """Raise `ConfigError` if an option of the placement is invalid, or would have no effect."""
    name, values = options["placement"], _placement_values(options)
    if name != LOCAL and not has_process:
        raise ConfigError(f"--placement {name}: this backend does not run in a process of its own")
    entry = placements.entry(name)
    if isinstance(entry, PlacementEntry) and entry.options is not None:
        placement_options(values, entry.options)


def check_engine_network(models: Sequence[Settings]) -> None:
    """Raise `ConfigError` if connections of engines are configured, and no engine connects."""
    if any(settings.backend_config.placement != LOCAL for settings in models):
        return
    network = models[0].engine_network
    for name in network.__struct_fields__:
        if getattr(network, name):
            raise ConfigError(
                f"{_flag(f'engine_{name}')}: engines of --placement {LOCAL} do not connect over a network"
            )


def _engine_network(options: Mapping[str, Any]) -> EngineNetwork:
    """Return how engines connect. Raise `ConfigError` if the certificate can't be used."""
    certfile, keyfile = options["engine_certfile"], options["engine_keyfile"]
    if keyfile is not None and certfile is None:
        raise ConfigError("--engine-keyfile requires --engine-certfile")
    if certfile is not None:
        from fllm.engine_host.tls import load_certificate

        load_certificate(certfile, keyfile)
    return EngineNetwork(
        listen=options["engine_listen"],
        advertise=options["engine_advertise"],
        tls=options["engine_tls"],
        certfile=None if certfile is None else str(certfile),
        keyfile=None if keyfile is None else str(keyfile),
    )


def _placement_values(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of ``--placement-option``, and of ``--ray-address``."""
    values = dict(options["placement_option"])
    if options["ray_address"] is not None:
        if options["placement"] != "ray":
            raise ConfigError("--ray-address requires --placement ray")
        if "address" in values:
            raise ConfigError("--ray-address and --placement-option address are the same: leave one out")
        values["address"] = options["ray_address"]
    return values


def _check_division(backends: Registry[BackendFactory], name: str, size: int | None) -> None:
    entry = backends.entry(name)
    if size not in (None, 1) and not (isinstance(entry, BackendEntry) and entry.divides_weights):
        raise ConfigError(
            f"--tensor-parallel-size {size}: the backend {name!r} does not divide the weights; leave it out"
        )


def _sampling(options: Mapping[str, Any], source: ModelSource, entry: Entry) -> SamplingDefaults | None:
    """Return the sampling defaults; ``None``: those of the backend's model.

    A backend that runs in no process of its own is a front. Its server need not know all of their fields.
    """
    if options["generation_config"] != MODEL_SAMPLING:
        given: SamplingDefaults = options["generation_config"]
        return given
    return source.sampling if isinstance(entry, BackendEntry) and entry.isolated else None


def _devices_by_backend(backends: Registry[BackendFactory]) -> dict[str, tuple[str, ...]]:
    entries = (registration.entry for registration in backends)
    return {entry.name: entry.devices for entry in entries if isinstance(entry, BackendEntry)}


def _format_backends(supported: Mapping[str, tuple[str, ...]]) -> str:
    parts = [f"{name} supports {', '.join(kinds)}" for name, kinds in supported.items() if kinds]
    return f"backends: {'; '.join(parts) or 'none'}"


def _wrap_backend(
    name: str, backends: Registry[BackendFactory], options: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the names of the backends that the server uses, from the outermost to the named one."""
    entry = backends.entry(name)
    isolated = isinstance(entry, BackendEntry) and entry.isolated
    in_process = options["engine_process"] and isolated and ENGINE_PROCESS in backends.names()
    given = next((name for name in ("replicas", "max_replicas") if options[name] not in (None, 1)), None)
    if given is None and options["min_replicas"] is None:
        return (ENGINE_PROCESS, name) if in_process else (name,)
    if not in_process:
        reason = f"the backend {name} has none" if options["engine_process"] else "--no-engine-process"
        flag = f"{_flag(given)} {options[given]}" if given else "--min-replicas"
        raise ConfigError(f"{flag}: each replica needs an engine process ({reason})")
    return REPLICAS, ENGINE_PROCESS, name


def _autoscaling(options: Mapping[str, Any]) -> Autoscaling | None:
    """Return how the number of replicas changes. Raise `ConfigError` if its limits exclude each other."""
    replicas, least, most = (options[name] for name in ("replicas", "min_replicas", "max_replicas"))
    if least is None and most is None:
        return None
    most = replicas if most is None else most
    least = 1 if least is None else least
    for name, value in (("min_replicas", least), ("replicas", replicas)):
        if value > most:
            raise ConfigError(f"{_flag(name)} {value} is more than --max-replicas {most}")
    return _fill_struct(Autoscaling, options, min_replicas=least, max_replicas=most)


def _visible_tokens(options: Mapping[str, Any], plugins: Plugins) -> tuple[str, ...]:
    """Return the special tokens that the selected parsers read."""
    parsers = [
        *load_possible_parsers(plugins.tool_parsers, _parser(options["tool_call_parser"])),
        *load_possible_parsers(plugins.reasoning_parsers, _parser(options["reasoning_parser"])),
    ]
    return tuple(dict.fromkeys(token for parser in parsers for token in parser.visible_tokens))


def _parser(name: str) -> str | None:
    return None if name == NO_PARSER else name


def _check_implied_flags(options: Mapping[str, Any], plugins: Plugins) -> None:
    """Raise `ConfigError` if a flag requires a parser and an option says that there is none."""
    flags: tuple[tuple[str, str, Registry[Any]], ...] = (
        ("enable_auto_tool_choice", "tool_call_parser", plugins.tool_parsers),
        ("enable_reasoning", "reasoning_parser", plugins.reasoning_parsers),
    )
    for flag, parser, registry in flags:
        if options[flag] and _parser(options[parser]) is None:
            registered = ", ".join(registry.names()) or "none"
            raise ConfigError(
                f"{_flag(flag)} requires {_flag(parser)} NAME, not {NO_PARSER} (registered: {registered})"
            )


def _check_offload(options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if there is no prefix cache whose blocks could be kept, or no place for them."""
    for name in ("kv_offload_memory", "kv_cache_dir"):
        if options[name] is not None and not options["enable_prefix_caching"]:
            raise ConfigError(f"{_flag(name)} has no effect with --no-enable-prefix-caching")
    if options["kv_cache_dir"] is not None and options["placement"] in (None, LOCAL):
        from fllm.private_directory import open_directory

        open_directory(options["kv_cache_dir"])


def _locate_model(model: str | None) -> ModelSource:
    try:
        return locate(model)
    except ModelError as error:
        raise ModelError(error.message if model is None else f"MODEL: {error.message}") from error


def _check_revision(revision: str | None, source: ModelSource) -> None:
    if revision is not None and source.kind != "hub":
        raise ConfigError(f"--revision {revision} requires a model on the Hub; {source.location!r} is local")


def _keys(options: Mapping[str, Any]) -> ApiKeys:
    keys: ApiKeys = options["api_key"]
    if options["api_key_file"] is not None:
        keys.load(options["api_key_file"])
    if keys.shares_key(options["admin_key"]):
        raise ConfigError("--admin-key: one of the API keys is the same; an administrator needs another key")
    return keys


def _tls(options: Mapping[str, Any]) -> ServerTls | None:
    if options["ssl_certfile"] is None:
        for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs", "ssl_cert_reqs"):
            if options[name]:
                raise ConfigError(f"{_flag(name)} requires --ssl-certfile")
        return None
    files = TlsFiles(
        certfile=options["ssl_certfile"],
        keyfile=options["ssl_keyfile"],
        ca_certs=options["ssl_ca_certs"],
        cert_reqs=ssl.VerifyMode(options["ssl_cert_reqs"]),
    )
    return ServerTls(files, options["ssl_keyfile_password"])


def _record(options: Mapping[str, Any]) -> RecordConfig | None:
    """Return what to record. Raise `ConfigError` if the file can't be written."""
    if options["record"] is None:
        if options["record_redact"]:
            raise ConfigError("--record-redact requires --record FILE")
        return None
    os.close(open_private(options["record"]))
    return RecordConfig(options["record"], options["record_size"], options["record_redact"])


def _trusted_proxies(values: Iterable[str]) -> TrustedProxies:
    return TrustedProxies.parse(name.strip() for value in values for name in value.split(","))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _fill_struct(kind: type[S], options: Mapping[str, Any], /, **values: Any) -> S:
    """Create a Struct from ``values``, and from the options with the names of its fields."""
    by_name = {name: options[name] for name in kind.__struct_fields__ if options.get(name) is not None}
    return kind(**{**by_name, **values})
