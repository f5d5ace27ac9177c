"""``furiosa-llm plugins template``: print the prompt that a chat becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import rich_click as click

from fllm.errors import ConfigError, RequestError
from fllm.model.files import model_directory
from fllm.model.source import locate
from fllm.plugins.loader import Plugins
from fllm.plugins.parser_detection import NO_PARSER
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CHAT_OPTIONS, CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.config import ServerConfig

SHOWN = ("chat_template", "chat_template_content_format", "default_chat_template_kwargs", "tool_call_parser")
"""Options of ``serve`` on which the prompt depends."""
OPTIONS = [option for option in CHAT_OPTIONS if option.name in (*SHOWN, "reasoning_parser")]


@click.command("template", params=[*OPTIONS, *PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--model", help="Directory, .gguf file or Hub id. Default: the embedded model.")
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit of a Hub model.")
@click.pass_context
def template(
    ctx: click.RichContext, /, file: BinaryIO, model: str | None, revision: str | None, **options: Any
) -> None:
    """Print the prompt of the messages in FILE, as the server renders it, and which template rendered it.

    FILE has the messages of a chat as a JSON array, or a whole request, such as one with tools. It is
    standard input by default. The prompt is printed to stdout, the rest to stderr.
    """
    plugins = plugins_of(ctx)
    plugins.check_options(allow_missing=True)
    request = _read_request(file)
    config = ServerConfig(
        served_model_name=locate(model).name,
        **{name: options[name] for name in SHOWN if options[name] is not None},
        reasoning_parser=options["reasoning_parser"],
    )
    parsers = {
        name: None for name in ("tool_call_parser", "reasoning_parser") if getattr(config, name) == NO_PARSER
    }
    config = msgspec.structs.replace(config, **parsers)
    directory = model_directory(model, revision)
    where, prompt = _render(request, config, plugins, directory)
    click.echo(f"rendered by {where}", err=True)
    click.echo(prompt)


def _read_request(file: BinaryIO) -> ChatRequest:
    """Return the request. Raise `ConfigError` if the file has neither messages nor a request."""
    content = file.read()
    try:
        if content.lstrip().startswith(b"["):
            return ChatRequest(messages=msgspec.json.decode(content, type=list[ChatMessage]))
        return msgspec.json.decode(content, type=ChatRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"FILE has neither messages nor a chat request: {error}") from error


def _render(request: ChatRequest, config: ServerConfig, plugins: Plugins, directory: Path) -> tuple[str, str]:
    """Return the origin of the chat template, and the prompt. Raise `UserError` if there is none."""
    from fllm.config import BackendConfig
    from fllm.control_tokens import unescape
    from fllm.interfaces import BackendContext
    from fllm.model_check import ModelCheck
    from fllm.testing.echo import EchoBackend
    from fllm.values import ModelCard
    from fllm_api.app_state import AppState
    from fllm_api.cli.model_files import load_model_files
    from fllm_api.cli.parser_selection import resolve_auto_parsers
    from fllm_api.intake.chat import render_chat

    card = ModelCard(tokenizer=str(directory), max_model_len=2**31)
    check = ModelCheck()
    try:
        files = load_model_files(config, plugins, card, check)
    finally:
        check.stop()
    if files.template is None:
        raise ConfigError(f"{directory} has no chat template that can be used: --chat-template FILE")
    config = resolve_auto_parsers(config, plugins, files.templates, files.tokenizer)
    parser = config.tool_call_parser
    state = AppState(
        config=config,
        plugins=plugins,
        backend=EchoBackend(BackendConfig(model=str(directory)), BackendContext()),
        backend_name="",
        card=card,
        tokenizer=files.tokenizer,
        template=files.template,
        tool_parser=None if parser is None else plugins.tool_parsers.load(parser),
    )
    try:
        return files.template.where, unescape(render_chat(request, state))
    except RequestError as error:
        raise ConfigError(f"{error.param or 'messages'}: {error.message}") from error
