"""``--tool-call-parser auto`` and ``--reasoning-parser auto``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.api_fakes import byte_tokenizer
from support.http_server import serving
from support.model_scripts import REASONS_THEN_CALLS, SCRIPTED_PLUGIN, write_script

import fllm
from fllm import ParserEntry
from fllm.chat import ChatTemplate
from fllm.config import PluginConfig
from fllm.plugins.loader import load_plugins
from fllm.testing import plugins_with
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.parser_selection import (
    load_possible_parsers,
    resolve_auto_parsers,
    warn_if_all_is_reasoning,
)
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import Settings, settings_from_options
from fllm_api.config import ServerConfig

AUTO = ServerConfig(served_model_name="m", tool_call_parser="auto", reasoning_parser="auto")
EVIDENCE = '{# <|start_header_id|> {"name": function name, "parameters": <｜Assistant｜><think> </think> #}'


class Acme:
    @fllm.hookimpl
    def fllm_tool_parsers(self) -> list[ParserEntry]:
        return [
            ParserEntry("angles", "acme_nowhere:Angles", template_markers=("<call>",)),
            ParserEntry("squares", f"{__name__}:Squares", template_markers=("[call]",)),
            ParserEntry(
                "stop",
                f"{__name__}:Squares",
                required_tokens=("<|eot|>", "<s>"),
                excluded_markers=("<call>", "[call]"),
            ),
        ]


class Squares:
    visible_tokens = ("[call]",)


def resolve(template: str, config: ServerConfig = AUTO) -> ServerConfig:
    plugins = plugins_with(Acme(), installed=False)
    return resolve_auto_parsers(config, plugins, {"default": "hi", "tool_use": template}, byte_tokenizer())


def test_a_third_party_parser_is_selected_by_any_template_of_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    assert resolve("[call]").tool_call_parser == "squares"
    assert "--tool-call-parser auto: squares (the model has '[call]')" in caplog.text


def test_a_parser_is_selected_by_the_tokens_of_the_model() -> None:
    assert resolve("").tool_call_parser == "stop"


def test_without_a_match_there_is_no_parser_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert resolve("").reasoning_parser is None
    assert "--reasoning-parser auto: no parser fits" in caplog.text


def test_a_parser_that_cannot_be_imported_is_not_selected(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve("<call>").tool_call_parser is None
    assert "--tool-call-parser auto: none is used: " in caplog.text
    assert "acme_nowhere" in caplog.text


def test_with_several_matches_there_is_no_parser_and_a_warning_names_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve("[call] <call>").tool_call_parser is None
    assert (
        "--tool-call-parser auto: several parsers match, so none is used; name one of angles, squares"
        in caplog.text
    )


def test_named_parsers_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    config = ServerConfig(served_model_name="m", tool_call_parser="angles", reasoning_parser=None)
    assert resolve("[call]", config) == config
    assert not caplog.records


def test_a_broken_parser_is_an_error_only_if_it_is_named() -> None:
    parsers = plugins_with(Acme(), installed=False).tool_parsers
    assert [each.visible_tokens for each in load_possible_parsers(parsers, "auto")] == [("[call]",)] * 2
    assert load_possible_parsers(parsers, None) == []
    with pytest.raises(fllm.PluginError, match="acme_nowhere"):
        load_possible_parsers(parsers, "angles")


def settings(*arguments: str) -> Settings:
    with serve.make_context("serve", list(arguments)) as ctx:
        return settings_from_options(ctx.params, plugins_of(ctx), plugin_config(ctx))


@pytest.mark.parametrize("options", [(), ("--tool-call-parser", "auto", "--reasoning-parser", "auto")])
def test_auto_is_the_default_and_makes_the_tokens_of_all_possible_parsers_visible(
    options: tuple[str, ...],
) -> None:
    made = settings(*options)
    assert (made.server.tool_call_parser, made.server.reasoning_parser) == ("auto", "auto")
    assert {"<think>", "[THINK]", "<|python_tag|>"} <= set(made.backend_config.visible_tokens)


def test_none_is_no_parser() -> None:
    made = settings("--tool-call-parser", "none", "--reasoning-parser", "none")
    assert (made.server.tool_call_parser, made.server.reasoning_parser) == (None, None)
    assert made.backend_config.visible_tokens == ()


@pytest.mark.parametrize(
    ("name", "template", "warns"),
    [
        ("deepseek_r1", "plain", True),
        ("deepseek_r1", "plain {# </think> #}", False),
        ("gemma4", "plain", False),
    ],
)
def test_a_reasoning_parser_that_would_take_all_output_is_a_warning(
    caplog: pytest.LogCaptureFixture, name: str, template: str, warns: bool
) -> None:
    parser = load_plugins(PluginConfig()).reasoning_parsers.load(name)
    compiled = ChatTemplate.compile({"default": template}, special_tokens={})
    warn_if_all_is_reasoning(name, parser, compiled, {"default": template})
    assert ("--reasoning-parser deepseek_r1: responses begin with reasoning" in caplog.text) is warns


def test_auto_counts_as_a_parser_for_the_enable_flags() -> None:
    assert (
        settings("--enable-auto-tool-choice", "--tool-call-parser", "auto").server.tool_call_parser == "auto"
    )
    assert settings("--enable-reasoning", "--reasoning-parser", "auto").server.reasoning_parser == "auto"


def test_the_selected_parsers_are_logged_and_used(tmp_path: Path) -> None:
    template = REASONS_THEN_CALLS.template + EVIDENCE
    write_script(replace(REASONS_THEN_CALLS, template=template), tmp_path)
    options = ("--plugin", str(SCRIPTED_PLUGIN), "--backend", "scripted")
    with serving(str(tmp_path), *options) as server:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {"name": "get_weather"}}],
        }
        answer = httpx.post(f"{server.api}/chat/completions", json=body, timeout=60).json()
        [model] = httpx.get(f"{server.api}/models").json()["data"]
        log = server.log()
    assert "--tool-call-parser auto: llama3_json" in log
    assert "--reasoning-parser auto: deepseek_r1" in log
    assert model["runtime_config"]["tool_call_parser"] == {"name": "llama3_json", "selected_by": "auto"}
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"].startswith("\nThe user wants")
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["get_weather", "now"]
