"""``furiosa-llm serve``: validate the options and bind the port before loading the model."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click
from setproctitle import setproctitle

from fllm.errors import ConfigError
from fllm.files import read_bounded
from fllm.plugins.loader import Plugins
from fllm_api.cli.bind import bind, bind_unix, bound_address, is_reachable
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.logs import configure_logging
from fllm_api.cli.model_list import settings_of_models
from fllm_api.cli.open_files import raise_file_limit
from fllm_api.cli.options import CONTEXT_SETTINGS, SERVE_PARAMS
from fllm_api.cli.options.other_servers import INSTEAD
from fllm_api.cli.parser_selection import load_possible_parsers
from fllm_api.cli.plugins.packages.recovery import is_interrupted
from fllm_api.cli.secrets import hide_arguments, hide_variables
from fllm_api.cli.settings import Settings
from fllm_api.config import ContentFormat, ServerConfig
from fllm_api.intake.shared_prefix_file import read_shared_prefix

log = logging.getLogger("fllm.server")

NAME_OPTION = "--served-model-name"
LORA_OPTION = "--lora-modules"
MAX_TEMPLATE_BYTES = 1024**2
"""Maximum size of the ``--chat-template`` file."""

EPILOG = """Each option can also be set by an environment variable FURIOSA_LLM_<OPTION>, such as
FURIOSA_LLM_PORT, or in the --config file. Options of plugins are set by FURIOSA_LLM_PLUGIN_<NAME>_<KEY>, or
in tables [plugins.NAME] of the file. The command line takes precedence over the environment, and the
environment over the file."""


class ServeCommand(click.RichCommand):
    """Accepts several values after one ``--served-model-name`` or ``--lora-modules``, as vLLM does.

    As in vLLM, ``--max_model_len`` is ``--max-model-len``. An unknown option of another server has a hint.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments with one option for each value."""
        args[:] = repeat_options([with_hyphens(arg) for arg in args])  # the same list: it may hold a key
        names = [arg.partition("=")[0] for arg in args]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if (known := next((name for name in names if name in INSTEAD), None)) is not None:
                raise click.UsageError(f"No such option '{known}': {INSTEAD[known]}.", ctx) from error
            raise


@click.command(
    "serve", cls=ServeCommand, params=SERVE_PARAMS, context_settings=CONTEXT_SETTINGS, epilog=EPILOG
)
@click.pass_context
def serve(ctx: click.RichContext, /, **options: Any) -> None:
    """Serve MODEL with an OpenAI-compatible API. The default is the embedded SmolLM2-135M-Instruct."""
    started_at = time.monotonic()
    raise_file_limit()
    hide_arguments("furiosa-llm serve")
    plugins = plugins_of(ctx)
    hide_variables(plugins.secret_variables())
    plugins.check_options()
    if options["reload"]:
        check_reload(plugins, several=bool(options["model_sources"] or options["models"]))
    check = partial(check_files, plugins=plugins)
    models = settings_of_models(ctx, plugins, plugins.engine_config(), check)
    config = models[0].server
    with ExitStack() as stack:
        sockets = bind_sockets(config, stack)
        names = ", ".join(each.server.served_model_name for each in models)
        setproctitle(f"furiosa-llm serve {names} {bound_address(sockets)}")
        configure_logging(options["log_level"], options["log_format"])
        plugins.warn()
        if is_interrupted():
            log.warning("a change of plugins was interrupted, or is in progress: run `furiosa-llm plugins`")
        warn_if_open_to_all(config, sockets)
        config.keys.warn_if_world_readable()

        from fllm_api.cli.lifecycle import run

        run(models, plugins, sockets, started_at)


def with_hyphens(arg: str) -> str:
    """Return an option with hyphens instead of underscores in its name."""
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else arg


def repeat_options(args: list[str]) -> list[str]:
    """Return ``MODEL --served-model-name a b --lora-modules c=d e=f`` with the option before each value.

    MODEL must precede the names. Otherwise it could be any of the values. That of ``--lora-modules`` are
    ``NAME=PATH`` or JSON, so it may follow them.
    """
    repeated: list[str] = []
    repeats_names = bool(args) and not args[0].startswith("-")
    option, values = "", 0
    for arg in args:
        if arg.startswith("-"):
            option, equals, _ = arg.partition("=")
            values = len(equals)
        elif (option == NAME_OPTION and repeats_names) or (option == LORA_OPTION and re.search("[={]", arg)):
            repeated += [option] if values else []
            values += 1
        else:
            option = ""
        repeated.append(arg)
    return repeated


def bind_sockets(config: ServerConfig, stack: ExitStack) -> list[socket.socket]:
    """Bind ``--uds``, or ``--host`` and ``--port``, until the stack is closed."""
    if config.uds is not None:
        return stack.enter_context(bind_unix(config.uds))
    return [stack.enter_context(each) for each in bind(config.host, config.port)]


def warn_if_open_to_all(config: ServerConfig, sockets: list[socket.socket]) -> None:
    """Log a warning if other machines can connect to a server without API keys."""
    if not config.keys.required and is_reachable(sockets):
        log.warning(
            "no API key, and --host %s: everyone who can connect can use the model; set --api-key-file",
            config.host,
        )


def check_reload(plugins: Plugins, *, several: bool) -> None:
    """Raise `ConfigError` if there is nothing to reload, or if there are several models."""
    from fllm.plugins.source_files import PluginSources

    if several:
        raise ConfigError("--reload works with one model: MODEL instead of --model or --models")
    if not PluginSources(plugins.config).names:
        raise ConfigError(
            "--reload: there is nothing to reload: name a --plugin FILE, or install the plugin with pip "
            "install --editable"
        )


def check_files(settings: Settings, plugins: Plugins) -> None:
    """Read the files that the options name, and import the parsers. Raise `UserError` if one is invalid."""
    config = settings.server
    for file in config.shared_prefixes:
        read_shared_prefix(file)
    check_parsers(config, plugins)
    if config.chat_template is not None:
        check_template(config.chat_template, config.chat_template_content_format)


def check_parsers(config: ServerConfig, plugins: Plugins) -> None:
    """Import the parsers named by the options. Raise `PluginError` if that fails."""
    load_possible_parsers(plugins.tool_parsers, config.tool_call_parser)
    load_possible_parsers(plugins.reasoning_parsers, config.reasoning_parser)


def check_template(file: Path, content_format: ContentFormat) -> None:
    """Read, compile and test the ``--chat-template`` file. Raise `ConfigError` if it is invalid."""
    from fllm.chat import ChatTemplate
    from fllm.model_check import render_watchdog

    where = f"--chat-template {file}"
    try:
        source = read_bounded(file, MAX_TEMPLATE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} can't be read: {error}") from error
    ChatTemplate.compile(
        {"default": source},
        special_tokens={},
        content_format=content_format,
        where=where,
        watchdog=render_watchdog(),
    ).check()
