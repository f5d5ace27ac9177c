"""The options of all plugins of a server: which given value belongs to which plugin, and what it becomes.

A plugin declares a Struct as ``FLLM_OPTIONS``, next to its hooks. Every hook that has a context, and every
object that an entry names, receives the value as ``context.options``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fllm.config import OPTION_VARIABLE, PluginOption
from fllm.errors import PluginError, format_error
from fllm.plugins.discovery import normalize_name
from fllm.plugins.options import HIDDEN, InvalidOption, Option, options_of, read_options

NOT_GIVEN = "default"
"""Source of a value that is not given."""


class OptionValue(Option, frozen=True, kw_only=True, omit_defaults=False):
    """An option of a plugin, with its current value."""

    value: Any = None
    source: str = NOT_GIVEN


class PluginOptions(Struct, kw_only=True):
    """The options of one plugin."""

    plugin: str
    distribution: str
    disabled: bool = False
    kind: type[Struct] | None = None
    """Its ``FLLM_OPTIONS``; ``None``: it declares none."""
    error: str | None = None
    """Why it could not be loaded, so that its options are unknown."""
    given: dict[str, PluginOption] = {}
    """Values that are given, by the name of the option."""
    value: Any = None
    """What the plugin receives: of type ``kind``, or ``None``."""
    problem: InvalidOption | None = None
    """Why there is no value."""

    @property
    def qualified(self) -> str:
        """A name that no other plugin has."""
        return f"{self.distribution}:{self.plugin}"

    @property
    def variable(self) -> str:
        """Beginning of the names of the environment variables for this plugin."""
        return f"{OPTION_VARIABLE}{_in_capitals(self.plugin)}_"

    def named(self, name: str) -> bool:
        """Return whether a name means this plugin."""
        return normalize_name(name) in (normalize_name(self.plugin), normalize_name(self.qualified))

    def read(self) -> None:
        """Read what is given. Record a problem if it is invalid, or if something required is missing."""
        if self.kind is None:
            return
        self.value = self.problem = None
        try:
            self.value = read_options(
                {name: each.value for name, each in self.given.items()}, self.kind, self._place
            )
        except InvalidOption as error:
            self.problem = error

    def described(self) -> list[OptionValue]:
        """Return the options with their values. Secrets are hidden."""
        if self.kind is None:
            return []
        values: dict[str, Any] = {name: each.value for name, each in self.given.items()}
        if self.value is not None:
            values = msgspec.to_builtins(self.value, enc_hook=str)
        return [
            OptionValue(
                *(getattr(option, name) for name in Option.__struct_fields__),
                value=_shown(values.get(option.name, option.default), option),
                source=self.given[option.name].source if option.name in self.given else NOT_GIVEN,
            )
            for option in options_of(self.kind)
        ]

    def _place(self, name: str) -> str:
        """Return where an option is set, for messages."""
        option = self.given.get(name)
        return f"--plugin-option {self.plugin}.{name}".rstrip(".") if option is None else place_of(option)


def place_of(option: PluginOption) -> str:
    """Return where a value is given, for messages."""
    if not option.plugin:
        return option.name
    if option.source == "file":
        return f"[plugins.{option.plugin}] {option.name}"
    return f"--plugin-option {option.plugin}.{option.name}"


def declared_options(plugin: object) -> type[Struct] | None:
    """Return the ``FLLM_OPTIONS`` of a plugin. Raise `PluginError` unless it is a Struct class, or absent."""
    kind: object = getattr(plugin, "FLLM_OPTIONS", None)
    if kind is None:
        return None
    if not isinstance(kind, type) or not issubclass(kind, Struct):
        raise PluginError(f"FLLM_OPTIONS must be a class derived from msgspec.Struct, not {kind!r}")
    try:
        options_of(kind)
    except (TypeError, NameError) as error:  # annotations that are invalid or cannot be resolved
        raise PluginError(f"FLLM_OPTIONS: {format_error(error)}") from error
    return kind


def assign(
    given: Iterable[PluginOption], plugins: Sequence[PluginOptions]
) -> Iterator[tuple[PluginOption, str]]:
    """Give each plugin its values, and read them. Yield those that have no plugin, with a message each."""
    for each in plugins:
        each.given = {}
    for option in given:
        found = _of_variable(option, plugins) if not option.plugin else _of_name(option, plugins)
        if isinstance(found, str):
            yield option, f"{place_of(option)}: {found}"
        elif found is not None:
            plugin, name = found
            plugin.given.pop(name, None)  # so that the last one is last
            plugin.given[name] = option
    for each in plugins:
        each.read()


def _of_name(
    option: PluginOption, plugins: Sequence[PluginOptions]
) -> tuple[PluginOptions, str] | str | None:
    """Return the plugin and the option's name; what is wrong; or ``None`` if the value has no effect."""
    named = [each for each in plugins if each.named(option.plugin)]
    matches = [each for each in named if not each.disabled] or named
    if not matches:
        return _unknown_plugin(option.plugin, plugins)
    if len(matches) > 1:
        qualified = " or ".join(each.qualified for each in matches)
        return f"several plugins have this name: write {qualified}"
    [plugin] = matches
    if plugin.disabled:
        return "the plugin is disabled" if option.source == "command line" else None
    if plugin.error is not None:
        return f"the plugin is left out: {plugin.error}"
    if plugin.kind is None:
        return "the plugin has no options"
    names = [each.name for each in options_of(plugin.kind)]
    alike = (name for name in (option.name, option.name.replace("-", "_")) if name in names)
    return plugin, next(alike, option.name)


def _of_variable(
    option: PluginOption, plugins: Sequence[PluginOptions]
) -> tuple[PluginOptions, str] | str | None:
    """Return the same for an environment variable."""
    named = [each for each in plugins if option.name.startswith(each.variable)]
    fields: list[tuple[PluginOptions, str]] = [
        (plugin, field.name)
        for plugin in named
        if plugin.kind is not None
        for field in options_of(plugin.kind)
        if option.name == plugin.variable + _in_capitals(field.name)
    ]
    if len(fields) == 1:
        return fields[0]
    if fields:
        names = " or ".join(f"--plugin-option {plugin.qualified}.{name}" for plugin, name in fields)
        return f"several plugins have such an option: use {names}"
    if any(plugin.disabled for plugin in named):
        return None
    if not named:
        return _unknown_plugin(option.name.removeprefix(OPTION_VARIABLE).lower(), plugins)
    plugin = max(named, key=lambda each: len(each.variable))
    if plugin.error is not None:
        return f"the plugin {plugin.plugin!r} is left out: {plugin.error}"
    if plugin.kind is None:
        return f"the plugin {plugin.plugin!r} has no options"
    variables = [plugin.variable + _in_capitals(each.name) for each in options_of(plugin.kind)]
    return _no_such("option", option.name, variables)


def _unknown_plugin(name: str, plugins: Sequence[PluginOptions]) -> str:
    return _no_such("plugin", name, [each.plugin for each in plugins if each.kind is not None])


def _no_such(what: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    having = "plugins with options" if what == "plugin" else "variables"
    return f"there is no such {what}{hint} ({having}: {', '.join(names) or 'none'})"


def _shown(value: Any, option: Option) -> Any:
    return HIDDEN if option.secret and value not in (None, "") else value


def _in_capitals(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


def secret_variables(plugins: Iterable[PluginOptions]) -> Iterator[str]:
    """Yield the names of the environment variables that set secrets."""
    for plugin in plugins:
        if plugin.kind is not None:
            secrets = (option.name for option in options_of(plugin.kind) if option.secret)
            yield from (plugin.variable + _in_capitals(name) for name in secrets)


def options_for(plugins: Iterable[PluginOptions]) -> tuple[PluginOption, ...]:
    """Return what is given to these plugins, for another process that loads them."""
    return tuple(
        PluginOption(plugin=plugin.qualified, name=name, value=option.value, source=option.source)
        for plugin in plugins
        for name, option in plugin.given.items()
    )


def option_tables(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[PluginOption]:
    """Yield the values of ``[plugins.NAME]`` tables."""
    for plugin, table in tables.items():
        for name, value in table.items():
            yield PluginOption(plugin=plugin, name=name, value=value, source="file")


def option_variables(environment: Mapping[str, str]) -> Iterator[PluginOption]:
    """Yield the values of environment variables."""
    for name, value in sorted(environment.items()):
        if name.startswith(OPTION_VARIABLE):
            yield PluginOption(name=name, value=value, source="environment")
