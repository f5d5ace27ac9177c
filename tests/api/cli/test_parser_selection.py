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
from fllm.testing import plugins_with
from fllm_api.cli.param_types import plugin_config, plugins_of
from fllm_api.cli.parser_selection import load_possible_parsers, resolve_auto_parsers
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import Settings, settings_from_options
from fllm_api.config import ServerConfig

AUTO = ServerConfig(served_model_name="m", tool_call_parser="auto", reasoning_parser="auto")
EVIDENCE = '{# <|start_header_id|> {"name": function name, "parameters": <｜Assistant｜> </think> #}'


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
    assert "--tool-call-parser auto: squares" in caplog.text


def test_a_parser_is_selected_by_the_tokens_of_the_model() -> None:
    assert resolve("").tool_call_parser == "stop"


def test_without_a_match_there_is_no_parser_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve("").reasoning_parser is None
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("--reasoning-parser auto: no parser matches")


def test_with_several_matches_there_is_no_parser_and_a_warning_names_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve("[call] <call>").tool_call_parser is None
    assert (
        "--tool-call-parser auto: several parsers match, so none is used; name one of angles, squares"
        in caplog.text
    )


def test_named_parsers_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    config = ServerConfig(served_model_name="m", tool_call_parser="angles")
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


def test_with_auto_the_tokens_of_all_possible_parsers_are_visible() -> None:
    made = settings("--tool-call-parser", "auto", "--reasoning-parser", "auto")
    assert (made.server.tool_call_parser, made.server.reasoning_parser) == ("auto", "auto")
    assert {"<think>", "[THINK]", "<|python_tag|>"} <= set(made.backend_config.visible_tokens)


def test_auto_counts_as_a_parser_for_the_enable_flags() -> None:
    assert (
        settings("--enable-auto-tool-choice", "--tool-call-parser", "auto").server.tool_call_parser == "auto"
    )
    assert settings("--enable-reasoning", "--reasoning-parser", "auto").server.reasoning_parser == "auto"


def test_the_selected_parsers_are_logged_and_used(tmp_path: Path) -> None:
    template = REASONS_THEN_CALLS.template + EVIDENCE
    write_script(replace(REASONS_THEN_CALLS, template=template), tmp_path)
    options = ("--plugin", str(SCRIPTED_PLUGIN), "--backend", "scripted")
    auto = ("--tool-call-parser", "auto", "--reasoning-parser", "auto")
    with serving(str(tmp_path), *options, *auto) as server:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {"name": "get_weather"}}],
        }
        answer = httpx.post(f"{server.api}/chat/completions", json=body, timeout=60).json()
        log = server.log()
    assert "--tool-call-parser auto: llama3_json" in log
    assert "--reasoning-parser auto: deepseek_r1" in log
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"].startswith("\nThe user wants")
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["get_weather", "now"]
