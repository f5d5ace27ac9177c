"""What the page learns about the server: models, plugins, panels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from litestar.exceptions import NotFoundException

import fllm
import fllm_dialects.ollama.plugin as ollama
from fllm.testing import ScriptedServer, plugins_with
from fllm_api.api_keys import ApiKeys
from fllm_page import plugin
from fllm_page.description import page_server, read_panel

SCRIPT = "export function mount(element) {}"


def plugin_with(*panels: fllm.PagePanel) -> ModuleType:
    module = ModuleType("panels")

    def yield_panels() -> Iterable[fllm.PagePanel]:
        return panels

    module.fllm_page_panels = fllm.hookimpl(yield_panels, specname="fllm_page_panels")  # type: ignore[attr-defined]
    return module


def test_the_server_is_described() -> None:
    panels = plugin_with(fllm.PagePanel("one", "One", SCRIPT))
    server = ScriptedServer(plugin, panels, reasoning_parser="qwen3", admin_keys=None)
    response = server.ask("GET", "/page/server")
    found = response.json()
    [model] = found.pop("models")
    assert response.headers["cache-control"] == "no-store"
    assert found == {
        "version": found["version"],
        "loads_models": False,
        "max_model_len": 4096,
        "sampling_defaults": {},
        "needs_key": False,
        "can_admin": False,
        "panels": [{"name": "one", "title": "One", "script": "page/panels/one.js"}],
    }
    assert (model["name"], model["state"], model["max_model_len"]) == ("scripted", "loaded", 4096)
    assert model["capabilities"]["chat"]
    assert not model["capabilities"]["images"]


def test_a_model_that_was_never_loaded_has_no_capabilities_yet() -> None:
    models = [fllm.ModelDescription(name="m", state="unloaded")]
    found = page_server(fllm.ServerDescription(version="1", models=models, loads_models=True))
    [model] = found.models
    assert (model.state, model.capabilities, model.max_model_len) == ("unloaded", None, None)
    assert found.loads_models


def test_what_a_model_can_do_follows_from_its_card() -> None:
    card = fllm.ModelCard(
        tokenizer="",
        max_model_len=8,
        grammar="llguidance",
        images=fllm.ImageSupport("<image>"),
        defaults=fllm.SamplingDefaults(temperature=0.5),
    )
    model = fllm.ModelDescription(name="m", card=card, reasoning_parser="qwen3")
    found = page_server(fllm.ServerDescription(models=[model]))
    assert msgspec.to_builtins(found.models[0].capabilities) == {
        "chat": True,
        "images": True,
        "tools": True,
        "reasoning": True,
        "grammars": True,
    }
    assert msgspec.to_builtins(found.sampling_defaults) == {"temperature": 0.5}


def test_the_plugins_are_those_that_the_command_lists() -> None:
    found = ScriptedServer(plugin, ollama).ask("GET", "/page/plugins").json()
    assert [each["name"] for each in found["plugins"]] == ["fllm_page.plugin", "fllm_dialects.ollama.plugin"]
    assert found["conflicts"] == []


def test_errors_of_requests_are_shown_to_those_who_see_all_requests() -> None:
    plugins = plugins_with(plugin, installed=False)
    server = ScriptedServer(loaded=plugins, api_keys=["k"], admin_keys=ApiKeys(["a"]))

    def error(key: str) -> str:
        headers = {"authorization": f"Bearer {key}"}
        found: str = server.ask("GET", "/page/plugins", headers=headers).json()["plugins"][0]["error"]
        return found

    server.ask("GET", "/")
    plugins.reports[0].record_run_time("a parser failed: ValueError: my secret")
    assert error("a") == "a parser failed: ValueError: my secret"
    assert error("k") == "it failed; the log and clients with an admin key have the reason"


def test_the_script_of_a_panel_is_served_and_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "panel.js"
    file.write_text(SCRIPT)
    server = ScriptedServer(plugin, plugin_with(fllm.PagePanel("one", "One", file)), api_keys=["k"])

    async def ask() -> None:
        async with server.running():
            found = await server.send("GET", "/page/panels/one.js")
            assert (found.status, found.content.decode()) == (200, SCRIPT)
            assert found.headers["content-type"].startswith("text/javascript")
            assert found.headers["x-content-type-options"] == "nosniff"
            for path in ("/page/panels/two.js", "/page/panels/one", "/page/panels/..%2Fpanel.js"):
                assert (await server.send("GET", path)).status == 404
            file.unlink()
            assert (await server.send("GET", "/page/panels/one.js")).status == 404

    asyncio.run(ask())


def test_a_panel_has_its_own_script() -> None:
    panels = [fllm.PagePanel("a", "A", "1"), fllm.PagePanel("b", "B", "2")]
    assert read_panel("b.js", panels) == "2"
    with pytest.raises(NotFoundException):
        read_panel("c.js", panels)


def test_a_name_belongs_to_one_plugin(caplog: pytest.LogCaptureFixture) -> None:
    first, second = (plugin_with(fllm.PagePanel("one", title, SCRIPT)) for title in ("First", "Second"))
    second.__name__ = "others"
    both = plugins_with(first, second, installed=False)
    assert [panel.title for panel in both.page_panels()] == ["Second"]  # later plugins come first
    assert "there is a panel 'one' already" in (both.reports[0].error or "")
    assert len(caplog.records) == 1
