"""Parameter types: convert text, or a value of the configuration file, into a setting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
import rich_click as click
from click.shell_completion import CompletionItem
from msgspec import Struct

from fllm.byte_sizes import parse_size
from fllm.config import Device, PluginOption, Speculation
from fllm.errors import FllmError
from fllm.files import read_bounded
from fllm.model.devices import parse_devices
from fllm.model.generation_config import SAMPLING_KEYS, sampling_defaults
from fllm.plugins.loader import Plugins
from fllm.plugins.registry import BackendEntry, Registry
from fllm.values import SamplingDefaults
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cors import normalize_origin
from fllm_api.protocol.lora import AdapterName, AdapterPath
from fllm_api.unknown_paths import ENDPOINTS

MAX_GENERATION_CONFIG = 1024**2
"""Maximum size of a ``generation_config.json``."""


class PluginOptionText(click.ParamType[PluginOption]):
    """A value of ``--plugin-option``. Messages leave it out, because it may be a secret."""

    name = "NAME.KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PluginOption:
        """Split at the first ``=``, and at the last dot before it."""
        if isinstance(value, PluginOption):
            return value
        option, equals, text = str(value).partition("=")
        plugin, _, name = option.rpartition(".")
        if not plugin or not name or not equals:
            self.fail(f"{option!r} is not {self.name}, such as acme.url=http://localhost", param, ctx)
        return PluginOption(plugin=plugin, name=name, value=text, source="command line")


class Integer(click.IntRange):
    """An integer of a range, which messages call an integer."""

    name = "integer"


class Number(click.FloatRange):
    """A number of a range, which messages call a number."""

    name = "number"


class Size(click.ParamType[int]):
    """A number of bytes, such as ``2GiB``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the size. A number in the configuration file counts bytes."""
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not valid; {error}", param, ctx)


class Pattern(click.ParamType["re.Pattern[str]"]):
    """A regular expression of Python that matches no empty text."""

    name = "REGEX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> re.Pattern[str]:
        """Compile the expression."""
        try:
            pattern = value if isinstance(value, re.Pattern) else re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            self.fail(f"{value!r} is not a regular expression: {error}", param, ctx)
        if pattern.search(""):
            self.fail(f"{value!r} matches an empty text", param, ctx)
        return pattern


class NewDirectory(click.Path):
    """The absolute path of a directory, which need not exist. An empty one is not the current directory."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, resolve_path=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reject an empty path, such as that of a variable that is not set."""
        if not str(value).strip():
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class NonEmptyText(click.ParamType[str]):
    """Text that is not empty. An environment variable may hold several values, separated by commas."""

    name = "text"
    envvar_list_splitter: ClassVar[str | None] = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Strip blanks and reject empty text. Other whitespace, such as a no-break space, is kept."""
        text = str(value).strip(" \t\r\n")
        return text or self.fail("the value is empty", param, ctx)


class Origins(click.ParamType[tuple[str, ...]]):
    """Origins of web pages: one, several separated by commas, or a JSON list; ``none`` is an empty list."""

    name = "ORIGINS"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the value as it is, because a JSON list may contain spaces."""
        return [rv]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split and validate the origins."""
        if isinstance(value, tuple):
            return value
        text = str(value).strip()
        try:
            listed = msgspec.json.decode(text, type=list[str]) if text.startswith("[") else text.split(",")
            return tuple(normalize_origin(each.strip()) for each in listed if each.strip() != "none")
        except (msgspec.MsgspecError, ValueError) as error:
            self.fail(f"{error}; expected origins, localhost, * or none", param, ctx)


class UrlPrefix(click.ParamType[str]):
    """The beginning of a URL's path, such as ``/llm``; ``/`` is none."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Remove a slash at the end. The prefix is compared with decoded paths."""
        prefix = str(value).rstrip("/")
        if prefix and (not prefix.startswith("/") or any(each in "?#%" or each.isspace() for each in prefix)):
            self.fail(f"{value!r} is not the beginning of a URL's path, such as /llm", param, ctx)
        if prefix and (route := next((each for each in ENDPOINTS if each.startswith(f"{prefix}/")), None)):
            self.fail(f"{value!r} is the beginning of a route of this server, {route}", param, ctx)
        return prefix


class HttpUrl(NonEmptyText):
    """The URL of a server that is asked by HTTP."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Reject what has no host, no such port or another scheme, before a request fails for it."""
        text = super().convert(value, param, ctx)
        try:
            parts = urlsplit(text)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        return (
            text if valid else self.fail(f"{text!r} is not a URL such as http://localhost:4318", param, ctx)
        )


class HostPort(click.ParamType[tuple[str, int | None]]):
    """An address and a port: ``10.0.0.1:7000``, ``[::1]:7000``."""

    def __init__(self, *, port_required: bool = True) -> None:
        self.name = "HOST:PORT" if port_required else "HOST[:PORT]"
        self._port_required = port_required

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | None]:
        """Divide the text. An IPv6 address is in brackets."""
        found = re.fullmatch(r"(?:\[([^]\s]+)\]|([^:\s\[\]]+))(?::(\d{1,5}))?", str(value))
        port = int(found[3]) if found and found[3] else None
        if found is None or (port or 0) > 65535 or (self._port_required and port is None):
            self.fail(f"{value!r} is not {self.name}, such as 10.0.0.1:7000 or [::1]:7000", param, ctx)
        return found[1] or found[2], port


class KeyValue(click.ParamType[tuple[str, str]]):
    """A ``KEY=VALUE`` pair."""

    envvar_list_splitter: ClassVar[str | None] = ","

    def __init__(self, name: str = "KEY=VALUE", hint: str = "") -> None:
        """Create it. ``hint`` completes the message for a value that is not such a pair."""
        self.name = name
        self._hint = hint

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the first ``=``."""
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not {self.name}{self._hint}", param, ctx)
        return key, text


LORA_EXAMPLE = '{"name": "sql", "path": "/adapters/sql"}'


class LoraModule(Struct, frozen=True, forbid_unknown_fields=True):
    """A value of ``--lora-modules``."""

    name: AdapterName
    path: AdapterPath
    base_model_name: str | None = None


_SPECULATION_FIELDS = tuple(name for name in Speculation.__struct_fields__ if name != "settings")


class Json(click.ParamType[Any]):
    """JSON of one Python type. The configuration file contains the value itself."""

    def __init__(self, json_type: Any, example: str) -> None:
        self.name = "JSON"
        self._type = json_type
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Decode and validate the value."""
        try:
            return self._decode(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r} is not valid; expected JSON such as {self._example}: {error}", param, ctx)

    def _decode(self, value: Any) -> Any:
        """Return the value. Raise `ValueError` or `RecursionError` if it is invalid."""
        if isinstance(value, str):
            return msgspec.json.decode(value, type=self._type)
        return msgspec.convert(value, self._type)


class SpeculativeConfig(Json):
    """JSON of a `Speculation`. Fields that it does not have belong to its drafter."""

    def __init__(self, example: str) -> None:
        super().__init__(dict[str, Any], example)

    def _decode(self, value: Any) -> Any:
        """Return the `Speculation`. A ``model`` without a method is a draft model, as in vLLM."""
        if isinstance(value, Speculation):
            return value
        fields: dict[str, Any] = dict(super()._decode(value))
        known = {name: fields.pop(name) for name in _SPECULATION_FIELDS if name in fields}
        if "model" in fields:
            known.setdefault("method", "draft_model")
        return msgspec.convert({**known, "settings": fields}, Speculation)


MODEL_SAMPLING = "auto"
"""Value of ``--generation-config``: the model's own sampling defaults."""


class GenerationConfig(click.ParamType[Any]):
    """Sampling defaults: ``auto``, ``vllm`` (neutral ones), or those of a ``generation_config.json``."""

    name = "auto | vllm | PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the file. ``auto`` is kept."""
        if value == MODEL_SAMPLING or isinstance(value, SamplingDefaults):
            return value
        if value == "vllm":
            return SamplingDefaults()
        path = Path(str(value)).expanduser()
        file = path / "generation_config.json" if path.is_dir() else path
        try:
            content = msgspec.json.decode(read_bounded(file, MAX_GENERATION_CONFIG), type=dict[str, Any])
            return sampling_defaults(content, str(file))
        except OSError as error:
            self.fail(f"{value!r}: {str(file)!r} can't be read: {error.strerror}", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"{str(file)!r} is invalid: {error}", param, ctx)
        except FllmError as error:
            self.fail(error.message, param, ctx)


class SamplingJson(Json):
    """Some sampling defaults as a JSON object, with the keys of ``generation_config.json``."""

    def __init__(self) -> None:
        super().__init__(dict[str, Any], '{"temperature": 0.2}')

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> SamplingDefaults:
        """Decode the object, and reject keys that have no effect."""
        if isinstance(value, SamplingDefaults):
            return value
        content = super().convert(value, param, ctx)
        for key in content.keys() - set(SAMPLING_KEYS):
            self.fail(f"the key {key!r} has no effect; known: {', '.join(SAMPLING_KEYS)}", param, ctx)
        try:
            return sampling_defaults(content, "invalid")
        except FllmError as error:
            self.fail(error.message, param, ctx)


class LoraModules(click.ParamType[LoraModule]):
    """A LoRA adapter, in vLLM's forms: ``NAME=PATH``, or a JSON object with ``name`` and ``path``."""

    name = "NAME=PATH | JSON"

    def split_envvar_value(self, rv: str) -> list[Any]:
        """Split at white space, unless the value is JSON: one object, or a list of them."""
        if rv.strip().startswith("["):
            return _decode_list(rv)
        return [rv] if rv.strip().startswith("{") else rv.split()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LoraModule:
        """Parse the name and the path. Whether the adapter exists is checked later."""
        try:
            if isinstance(value, str) and not value.lstrip().startswith("{"):
                name, _, path = value.partition("=")
                value = {"name": name.strip(), "path": path.strip()}
            elif isinstance(value, str):
                value = msgspec.json.decode(value)
            return value if isinstance(value, LoraModule) else msgspec.convert(value, LoraModule)
        except msgspec.MsgspecError as error:
            self.fail(f"{value!r} is not valid; expected NAME=PATH or {LORA_EXAMPLE}: {error}", param, ctx)


def _decode_list(text: str) -> list[Any]:
    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.MsgspecError:
        return [text]


class Devices(click.ParamType[tuple[Device, ...]]):
    """A list of devices. The devices of installed backends are valid kinds."""

    name = "DEVICES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the list. Whether a backend supports the devices is checked later."""
        if not isinstance(value, str):
            return value
        entries = [each.entry for each in plugins_of(ctx).backends] if ctx else []
        plugin_kinds = {kind for each in entries if isinstance(each, BackendEntry) for kind in each.devices}
        try:
            return parse_devices(value, others=plugin_kinds)
        except FllmError as error:
            self.fail(error.message, param, ctx)


class RegisteredName(click.ParamType[str]):
    """A name from a plugin registry, or one of ``extra_names``. ``--help`` lists all of them."""

    def __init__(self, registry: str, *extra_names: str) -> None:
        self.name = "NAME"
        self._registry = registry
        self._extra_names = extra_names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """Return all valid names."""
        # The spaces around | allow line breaks.
        return f"[{' | '.join(self._names(ctx))}]"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the valid names that begin so."""
        return [CompletionItem(name) for name in self._names(ctx) if name.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reject an unknown name, with a suggestion, and a name that two distributions register."""
        assert ctx is not None
        if value in self._extra_names:
            return value
        try:
            self._get_registry(ctx).entry(value)
        except FllmError as error:
            self.fail(error.message + _failed_plugins(plugins_of(ctx)), param, ctx)
        return value

    def _names(self, ctx: click.Context) -> list[str]:
        return [*self._extra_names, *self._get_registry(ctx).names()]

    def _get_registry(self, ctx: click.Context) -> Registry[Any]:
        registry = getattr(plugins_of(ctx), self._registry)
        assert isinstance(registry, Registry)
        return registry


def _failed_plugins(plugins: Plugins) -> str:
    failed = [report.name for report in plugins.reports if report.error]
    return f"; failed to load: {', '.join(failed)} (see `furiosa-llm plugins`)" if failed else ""
