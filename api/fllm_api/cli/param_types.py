"""Types of options: each turns text (or a value of the configuration file) into what the settings hold."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import rich_click as click

from fllm.config import Device, PluginConfig
from fllm.errors import FllmError
from fllm.model.devices import parse_devices
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.registry import Registry


def plugins_of(ctx: click.Context) -> Plugins:
    """The plugins that this command line asks for; found once, since options and their help need them."""
    plugins = ctx.meta.get("fllm.plugins")
    if plugins is None:
        plugins = ctx.meta["fllm.plugins"] = load_plugins(plugin_config(ctx))
    assert isinstance(plugins, Plugins)
    return plugins


def plugin_config(ctx: click.Context) -> PluginConfig:
    """What ``--plugin`` and ``--disable-plugin`` say, even while ``--help`` has yet to read them.

    A group has these options, and so has each of its commands: both are heard.
    """
    outer = PluginConfig() if ctx.parent is None else plugin_config(ctx.parent)
    for param in ctx.command.params:
        if param.is_eager and param.name not in ctx.params:
            param.handle_parse_result(ctx, {}, [])
    return PluginConfig(
        paths=(*outer.paths, *map(str, ctx.params.get("plugin", ()))),
        disabled=(*outer.disabled, *ctx.params.get("disable_plugin", ())),
    )


class NonEmptyText(click.ParamType[str]):
    """Text of which an environment variable may hold several, separated by commas."""

    name = "text"
    envvar_list_splitter: ClassVar[str | None] = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Trimmed; an empty one is refused."""
        text = str(value).strip()
        return text or self.fail("it is empty", param, ctx)


class KeyValue(click.ParamType[tuple[str, str]]):
    """``KEY=VALUE``."""

    name = "KEY=VALUE"
    envvar_list_splitter: ClassVar[str | None] = ","

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The pair; the value may itself contain ``=``."""
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, text


class Json(click.ParamType[Any]):
    """JSON of one Python type; the configuration file gives the value itself."""

    def __init__(self, wanted: Any, example: str) -> None:
        self.name = "JSON"
        self._wanted = wanted
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Decode and check."""
        try:
            if isinstance(value, str):
                return msgspec.json.decode(value, type=self._wanted)
            return msgspec.convert(value, self._wanted)
        except msgspec.MsgspecError as error:
            self.fail(f"{value!r} is not JSON such as {self._example}: {error}", param, ctx)


class Devices(click.ParamType[tuple[Device, ...]]):
    """The grammar of ``--devices``; kinds that installed backends serve extend it."""

    name = "DEVICES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse; whether a backend serves them is checked later."""
        if not isinstance(value, str):
            return value
        others = (
            {kind for each in plugins_of(ctx).backends for kind in getattr(each.entry, "devices", ())}
            if ctx
            else ()
        )
        try:
            return parse_devices(value, others=others)
        except FllmError as error:
            self.fail(error.message, param, ctx)


class RegisteredName(click.ParamType[str]):
    """A name in one of the registries of plugins, which ``--help`` lists, or one of the ``others``."""

    def __init__(self, registry: str, *others: str) -> None:
        self.name = "NAME"
        self._registry = registry
        self._others = others

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """The registered names."""
        return f"[{' | '.join([*self._others, *self._names(ctx).names()])}]"  # spaces, to be wrapped at

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an unknown name, suggesting the nearest, and one that two distributions offer."""
        assert ctx is not None
        if value in self._others:
            return value
        try:
            self._names(ctx).entry(value)
        except FllmError as error:
            self.fail(error.message + _broken(plugins_of(ctx)), param, ctx)
        return value

    def _names(self, ctx: click.Context) -> Registry[Any]:
        registry = getattr(plugins_of(ctx), self._registry)
        assert isinstance(registry, Registry)
        return registry


def _broken(plugins: Plugins) -> str:
    broken = [report.name for report in plugins.reports if report.error]
    return f"; failed to load: {', '.join(broken)} (see `furiosa-llm plugins`)" if broken else ""
