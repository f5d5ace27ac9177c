"""The top-level command group: built-in commands and those of plugins, each imported when it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from importlib import metadata
from typing import Any

import rich_click as click

from fllm.config import PluginConfig
from fllm.errors import PluginError
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.registry import Entry, Registry
from fllm_api.build_info import DISTRIBUTION
from fllm_api.cli.loaded_plugins import plugin_config

BUILTIN_COMMANDS = (
    Entry("serve", "fllm_api.cli.serve:serve", "Serve a model with an OpenAI-compatible API."),
    Entry("plugins", "fllm_api.cli.plugins:plugins", "List, show, check and create plugins."),
    Entry("version", "fllm_api.cli.version:version", "Print the version."),
    Entry(
        "collect-env",
        "fllm_api.cli.collect_env:collect_env",
        "Print the environment for a bug report.",
    ),
)


class LazyCommand(click.RichCommand):
    """Placeholder of a command. Its name and summary are known; its module is imported when it runs."""

    def __init__(self, registry: Registry[Any], entry: Entry) -> None:
        super().__init__(name=entry.name, help=entry.summary)
        self._registry = registry

    def make_context(self, info_name: str | None, args: list[str], **extra: Any) -> click.Context:  # type: ignore[override]
        """Import the command and parse the arguments with it."""
        return self.load().make_context(info_name, args, **extra)

    def load(self) -> click.Command:
        """Import the command. Raise `PluginError` if that fails."""
        command = self._registry.load(self.name or "")
        if not isinstance(command, click.Command):
            raise PluginError(
                f"the command {self.name!r} is a {type(command).__name__}; it must be a click.Command"
            )
        return command


class PluginCommand(LazyCommand):
    """A command of a plugin, which receives the plugin's options, if it has any, as ``click.Context.obj``."""

    def __init__(self, plugins: Plugins, entry: Entry) -> None:
        super().__init__(plugins.commands, entry)
        self._plugins = plugins

    def make_context(self, info_name: str | None, args: list[str], **extra: Any) -> click.Context:  # type: ignore[override]
        """Import the command, and parse the arguments with it and with options for those of its plugin."""
        name = self.name or ""
        command = self.load()
        if (options := self._plugins.command_options(name)) is None:
            return command.make_context(info_name, args, **extra)

        from fllm_api.cli.options import PLUGIN_OPTION, PLUGINS_CONFIG

        command = copy(command)  # which other callers may use as it is
        own = {each.name for each in command.params}
        command.params = [
            *command.params,
            *(each for each in (PLUGIN_OPTION, PLUGINS_CONFIG) if each.name not in own),
        ]
        context = command.make_context(info_name, args, **extra)
        self._plugins.read_options(plugin_config(context).options)
        self._plugins.check_command_options(name)
        context.obj = options.value
        return context


class CommandGroup(click.RichGroup):
    """A command group that looks for plugins only for ``--help`` and for commands that are not built in."""

    def make_context(self, info_name: str | None, args: list[str], **extra: Any) -> click.Context:  # type: ignore[override]
        """Parse the arguments, then clear them because they may contain API keys."""
        context = super().make_context(info_name, args, **extra)
        args.clear()
        return context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands in their order, then those of plugins by name."""
        self._add_plugin_commands(ctx)
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. A built-in command takes precedence over a plugin's command of the same name."""
        if cmd_name not in self.commands:
            self._add_plugin_commands(ctx)
        return super().get_command(ctx, cmd_name)

    def _add_plugin_commands(self, ctx: click.Context) -> None:
        if not ctx.meta.setdefault("fllm.commands", False):
            ctx.meta["fllm.commands"] = True
            plugins = installed_plugins(plugin_config(ctx).paths)
            for registration in plugins.commands:
                if registration.entry.name not in self.commands:
                    self.add_command(PluginCommand(plugins, registration.entry))


def root_command() -> click.RichGroup:
    """Return the top-level command group."""
    group = CommandGroup(
        callback=_help_without_command,
        params=[_version_option(), _plugin_option()],
        invoke_without_command=True,
        help="An OpenAI-compatible server for large language models. Every feature is a plugin.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in lazy_commands(BUILTIN_COMMANDS):
        group.add_command(command)
    return group


def _version_option() -> click.Option:
    return click.RichOption(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )


def _plugin_option() -> click.Option:
    return click.RichOption(
        ["--plugin"],
        type=click.Path(exists=True, dir_okay=False),
        multiple=True,
        is_eager=True,
        expose_value=True,
        help="Plugin to load from a .py file, such as one with a command.",
    )


def _print_version(ctx: click.Context, param: click.Parameter, requested: bool) -> None:  # noqa: ARG001
    if requested and not ctx.resilient_parsing:
        click.echo(f"furiosa-llm {metadata.version(DISTRIBUTION)}")
        ctx.exit()


def lazy_commands(entries: Sequence[Entry]) -> Iterator[LazyCommand]:
    """Yield placeholders of built-in commands. Each command is imported when it runs."""
    registry: Registry[Any] = Registry("command")
    for entry in entries:
        registry.add(entry, plugin="api", distribution=DISTRIBUTION)
        yield LazyCommand(registry, entry)


def installed_plugins(paths: tuple[str, ...] = ()) -> Plugins:
    """Return the installed plugins and those of files, for commands without plugin options."""
    disabled = (*_names("FLLM_DISABLE_PLUGINS"), *_names("FURIOSA_LLM_DISABLE_PLUGIN"))
    return load_plugins(
        PluginConfig(paths=paths, disabled=disabled, allowed=_names("FURIOSA_LLM_ALLOW_PLUGIN") or None)
    )


def _names(variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


@click.pass_context
def _help_without_command(ctx: click.Context, /, plugin: tuple[str, ...]) -> None:  # noqa: ARG001
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
