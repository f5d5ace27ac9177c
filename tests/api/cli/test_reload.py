"""``--reload``: the code of plugins is imported again, and the backend stays."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, get

from fllm.config import PluginConfig
from fllm.errors import PluginError
from fllm.plugins.loader import load_plugins
from fllm.plugins.source_files import PluginSources
from fllm.testing.asgi_client import lifespan, send
from fllm_api.cli.reload import NewApp, ReloadableApp

PLUGIN = "import fllm\nWORD = {word!r}\n@fllm.hookimpl\ndef fllm_routes():\n    return []\n"


def an_app(word: str, events: list[str], *, fails: bool = False) -> Litestar:
    """Return an application that answers with a word, and that notes the life of its resources."""

    @get("/", sync_to_thread=False)
    def answer() -> str:
        return word

    @asynccontextmanager
    async def resources(_: Litestar) -> AsyncIterator[None]:
        if fails:
            raise OSError("no disk")
        events.append(f"open {word}")
        yield
        events.append(f"close {word}")

    return Litestar([answer], lifespan=[resources], logging_config=None)


def sources_of(file: Path, word: str = "one") -> PluginSources:
    """Write a plugin and return its sources."""
    file.write_text(PLUGIN.format(word=word))
    return PluginSources(PluginConfig(paths=(str(file),)))


def reloaded(sources: PluginSources, build: Callable[[], Any], events: list[str]) -> tuple[str, str]:
    """Return the answers before and after a reload."""

    async def building() -> NewApp:
        made = build()
        return NewApp(made, lambda: events.append("activate"), lambda: events.append("undo"))

    async def run() -> tuple[str, str]:
        app = ReloadableApp(an_app("old", events), sources, building)
        async with lifespan(app):
            before = await send(app, "GET", "/", content=b"", headers={}, leave_after=float("inf"))
            await app.reload()
            after = await send(app, "GET", "/", content=b"", headers={}, leave_after=float("inf"))
        return before.content.decode(), after.content.decode()

    return asyncio.run(run())


def test_the_new_application_has_the_resources_of_the_old_one(tmp_path: Path) -> None:
    events: list[str] = []
    sources = sources_of(tmp_path / "mine_a.py")
    assert reloaded(sources, lambda: an_app("new", events), events) == ("old", "new")
    assert events == ["open old", "close old", "activate", "open new", "close new"]


def test_an_error_keeps_the_old_application_and_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise PluginError("mine: SyntaxError")

    events: list[str] = []
    sources = sources_of(tmp_path / "mine_b.py")
    assert reloaded(sources, fail, events) == ("old", "old")
    assert reloaded(sources, lambda: an_app("new", events, fails=True), events) == ("old", "old")
    assert events[-6:] == ["open old", "close old", "activate", "undo", "open old", "close old"]
    failures = [record.getMessage() for record in caplog.records if "not reloaded" in record.getMessage()]
    assert failures == [
        "plugins are not reloaded, the old code goes on: mine: SyntaxError",
        "plugins are not reloaded, the old code goes on: OSError: no disk",
    ]


def test_a_file_is_imported_again_and_its_module_restored(tmp_path: Path) -> None:
    file = tmp_path / "mine_c.py"
    sources = sources_of(file)
    config = PluginConfig(paths=(str(file),))
    before = sources.snapshot()
    load_plugins(config)
    old = sys.modules["mine_c"]
    file.write_text(PLUGIN.format(word="two"))
    assert sources.snapshot() != before
    modules = sources.forget_modules()
    load_plugins(config)
    assert sys.modules["mine_c"].WORD == "two"
    sources.restore_modules(modules)
    assert sys.modules["mine_c"] is old
    assert sources.names == {"mine_c"}
    sources.forget_modules()


def test_files_of_the_server_itself_are_not_reloaded() -> None:
    from fllm.testing import ECHO_PLUGIN

    assert not PluginSources(PluginConfig(paths=(ECHO_PLUGIN,))).names
