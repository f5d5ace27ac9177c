"""A server in this process, without a model: the routes of plugins over an engine with a script."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fllm.interfaces import Collector, LoadedParser, LoadedToolParser
from fllm.plugins.loader import Plugins, load_plugins
from fllm.testing.asgi_client import AsgiApp, Response, lifespan, send
from fllm.testing.echo import byte_tokenizer
from fllm.testing.plugins import plugins_with
from fllm.testing.scripted_engine import ScriptedEngine
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content or '' }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""The chat template: ``<user>Hello<assistant>``."""


class ScriptedServer:
    """The HTTP application of a server, with all of its limits. One token is one byte.

    ::

        server = ScriptedServer(my_plugin, pieces=["Hello", " world"])
        assert server.ask("POST", "/my/route", json={"prompt": "Hi"}).json() == {"text": "Hello world"}
    """

    def __init__(
        self,
        *plugins: object,
        pieces: Sequence[str] = ("Hello", " world", "!"),
        options: Mapping[str, Mapping[str, Any]] = {},
        tool_call_parser: str | None = None,
        reasoning_parser: str | None = None,
        max_model_len: int = 4096,
        collectors: Sequence[Collector] = (),
        loaded: Plugins | None = None,
        **settings: Any,
    ) -> None:
        """Build the application with these plugins and the server's own routes.

        ``options`` are options of plugins, see `plugins_with`; ``loaded`` are plugins instead of these.
        ``collectors`` observe the requests. ``settings`` are options of ``furiosa-llm serve``: ``api_keys``,
        ``limits``, ``max_queue``, ``request_timeout`` and the other fields of the configuration. Raise
        `PluginError` if a plugin, or one of its routes, is left out.
        """
        from fllm_api.scripted_app import create_scripted_app

        self._tokenizer = tokenizer = Tokenizer(byte_tokenizer(), {})
        card = ModelCard(tokenizer="", max_model_len=max_model_len)
        encode = partial(tokenizer.encode, add_special_tokens=False)
        self.engine = ScriptedEngine(pieces, encode, card)
        self.plugins = loaded or plugins_with(*plugins, installed=False, options=options)
        self.app: AsgiApp = create_scripted_app(
            self.plugins,
            self.engine,
            card,
            tokenizer,
            TEMPLATE,
            parsers=_parsers(tool_call_parser, reasoning_parser),
            collectors=collectors,
            settings=settings,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, such as those of a prompt in ``engine.requests``."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedServer]:
        """Start the application, and stop it at exit, for a test with several requests at once."""
        async with lifespan(self.app):
            yield self

    async def send(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] = {},
        leave_after: float = math.inf,
    ) -> Response:
        """Return the response to one request, while the server is `running`.

        The client leaves once it has received ``leave_after`` parts of the response, or at once if it is 0.
        """
        if content is None:
            content = b"" if json is None else _encode(json)
            headers = {"content-type": "application/json", **headers} if content else headers
        return await send(self.app, method, url, content=content, headers=headers, leave_after=leave_after)

    def ask(self, method: str, url: str, **request: Any) -> Response:
        """Start the server, and return the response to one request; the arguments are those of `send`."""

        async def go() -> Response:
            async with self.running():
                return await self.send(method, url, **request)

        return asyncio.run(go())


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _parsers(tool_call_parser: str | None, reasoning_parser: str | None) -> dict[str, Any]:
    """Return parsers of installed plugins."""
    parsers: dict[str, LoadedParser | LoadedToolParser] = {}
    if tool_call_parser or reasoning_parser:
        installed = load_plugins()
        if tool_call_parser:
            parsers["tool_parser"] = installed.tool_parsers.load(tool_call_parser)
        if reasoning_parser:
            parsers["reasoning_parser"] = installed.reasoning_parsers.load(reasoning_parser)
    return parsers
