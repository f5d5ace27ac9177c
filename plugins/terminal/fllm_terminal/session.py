"""One connected conversation: what both commands do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from fllm.errors import ConfigError
from fllm_terminal.answer_view import AnswerView
from fllm_terminal.client import Client
from fllm_terminal.connection import Connection, connect, is_url, private_server
from fllm_terminal.conversation import Conversation
from fllm_terminal.options import ChatOptions, split_serve_options
from fllm_terminal.settings import Sampling, Settings, read_schema, read_tools


class Session:
    """A conversation with a model of a server."""

    def __init__(self, client: Client, conversation: Conversation, models: list[str]) -> None:
        self.conversation = conversation
        self.models = models
        self._client = client

    def answer(self, view: AnswerView) -> None:
        """Generate and show the next answer. It is complete if the view has ``finished``; Ctrl-C ends it.

        What has arrived is part of the conversation then, and also if `RequestFailed` is raised; but tool
        calls only of an answer that came to its own end, since the arguments of the last may be cut.
        """
        try:
            asyncio.run(self._generate(view))
        except KeyboardInterrupt:
            pass
        finally:
            view.end_part()
            if view.finished is None or view.finished.reason == "length":
                view.answer.calls.clear()
            self.conversation.add(view.answer)

    async def _generate(self, view: AnswerView) -> None:
        async for event in self._client.chat(self.conversation.body()):
            view.show(event)


@contextmanager
def open_session(target: str | None, options: ChatOptions) -> Iterator[Session]:
    """Connect to the server at a URL, or run one for a model; ``None`` is the embedded model.

    Raise `UserError` if an option is invalid, or the server can't be reached or does not start.
    """
    settings = Settings(
        model=options.served_model or "",
        system=options.system,
        sampling=Sampling(**options.sampling),
        tools=read_tools(options.tools) if options.tools else [],
        response_format=read_schema(options.schema) if options.schema else None,
    )
    conversation = Conversation(settings)
    for image in options.image:
        conversation.attach_image(image)
    serve_options = split_serve_options(options.serve_options)
    if target is not None and is_url(target):
        if serve_options:
            raise ConfigError("--serve-options is for a MODEL; this is the address of a running server")
        yield _start(connect(target, options.api_key), conversation)
        return
    with _own_server(target, serve_options) as connection:
        yield _start(connection, conversation)


@contextmanager
def _own_server(model: str | None, options: list[str]) -> Iterator[Connection]:
    status = Console(stderr=True, highlight=False).status(f"Starting {model or 'the embedded model'}")
    status.start()
    try:
        with private_server(model, options, lambda line: status.update(line)) as connection:
            status.stop()
            yield connection
    finally:
        status.stop()


def _start(connection: Connection, conversation: Conversation) -> Session:
    """Return a session after the server has answered. Raise `RequestFailed` if it does not."""
    client = Client(connection)
    models = asyncio.run(client.models())
    settings = conversation.settings
    if not settings.model:
        if not models:
            raise ConfigError(f"{connection.url} lists no model; name one with --served-model")
        settings.model = models[0]
    return Session(client, conversation, models)
