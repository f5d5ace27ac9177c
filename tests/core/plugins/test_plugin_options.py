"""Options of plugins: declared by each, given in three places, and received by everything that it adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.distributions import importable, install
from support.options_plugin import Options, Retry, ShownCollector
from support.paths import SUPPORT

from fllm import (
    GrammarContext,
    MetricsContext,
    ModelCard,
    ParserContext,
    PlacementContext,
    PluginConfig,
    TemplateContext,
    Text,
    Vocabulary,
)
from fllm.config import PluginOption
from fllm.errors import ConfigErrors
from fllm.plugins.loader import PluginReport, Plugins, load_plugins
from fllm.plugins.plugin_options import option_tables, option_variables
from fllm.testing import plugins_with

PLUGIN = str(SUPPORT / "options_plugin.py")
NAME = "options_plugin"
VARIABLE = "FURIOSA_LLM_PLUGIN_OPTIONS_PLUGIN"


def given(
    *arguments: str,
    environment: Mapping[str, str] = {},
    file: Mapping[str, Mapping[str, Any]] = {},
    disabled: tuple[str, ...] = (),
) -> Plugins:
    """Load the plugins with options from the three places."""
    values = [argument.partition("=") for argument in arguments]
    options = [
        PluginOption(
            plugin=key.rpartition(".")[0], name=key.rpartition(".")[2], value=text, source="command line"
        )
        for key, _, text in values
    ]
    everything = (*option_tables(file), *option_variables(environment), *options)
    return load_plugins(PluginConfig(paths=(PLUGIN,), options=everything, disabled=disabled))


def report_of(plugins: Plugins, name: str = NAME) -> PluginReport:
    [report] = [each for each in plugins.reports if each.name == name]
    return report


def value_of(plugins: Plugins) -> Options:
    plugins.check_options()
    [value] = [
        options for group in plugins.routes(list) for options in group if type(options).__name__ == "Options"
    ]
    return msgspec.convert(msgspec.to_builtins(value), Options)  # the module of the file is another one


def errors(plugins: Plugins) -> tuple[str, ...]:
    with pytest.raises(ConfigErrors) as raised:
        plugins.check_options()
    return raised.value.messages


def test_the_command_line_precedes_the_environment_and_that_the_file() -> None:
    table = {"name": "file", "port": 1, "tags": ["file"]}
    environment = {f"{VARIABLE}_NAME": "environment", f"{VARIABLE}_PORT": "2"}
    plugins = given(f"{NAME}.name=command line", environment=environment, file={NAME: table})
    assert value_of(plugins) == Options(name="command line", port=2, tags=["file"])
    described = {option.name: (option.value, option.source) for option in report_of(plugins).options}
    assert described == {
        "name": ("command line", "command line"),
        "port": (2, "environment"),
        "token": ("", "default"),
        "tags": (["file"], "file"),
        "retry": ({"attempts": 3}, "default"),
    }


@pytest.mark.parametrize("name", [NAME, "Options-Plugin", f"{PLUGIN}:{NAME}"])
def test_a_plugin_has_the_names_by_which_it_can_be_disabled(name: str) -> None:
    assert value_of(given(f"{name}.name=a")).name == "a"
    assert value_of(given(file={name: {"name": "a"}})).name == "a"


def test_lists_and_tables_are_json_on_the_command_line_and_typed_in_the_file() -> None:
    wanted = Options(name="a", tags=["x", "y"], retry=Retry(attempts=5))
    arguments = (f"{NAME}.name=a", f'{NAME}.tags=["x", "y"]', f'{NAME}.retry={{"attempts": 5}}')
    assert value_of(given(*arguments)) == wanted
    table = {"name": "a", "tags": ["x", "y"], "retry": {"attempts": 5}}
    assert value_of(given(file={NAME: table})) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--plugin-option options_plugin.name=...: this option is required: text (name of the place)"),
        (("name=a", "prot=1"), "options_plugin.prot: there is no such option; did you mean 'port'?"),
        (("name=a", "port=x"), "options_plugin.port='x': invalid value; expected integer"),
        (("name=a", "port=0"), "options_plugin.port='0': invalid value; expected integer, at le"),
        (("name=a", "tags=x"), "options_plugin.tags='x': invalid value; expected list of text"),
        (("name=a", 'retry={"attempts": 0}'), "expected table, as JSON; Expected `int` >= 1 - at `$.retry"),
    ],
)  # fmt: skip
def test_what_is_invalid_or_missing_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    [error] = errors(given(*(f"{NAME}.{argument}" for argument in arguments)))
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": "x"}, "[plugins.options_plugin] port='x': invalid value"),
        ({"port": 1.5}, "[plugins.options_plugin] port=1.5: invalid value"),
        ({"name": 7}, "[plugins.options_plugin] name=7: invalid value; expected text"),
        ({"retry": {"attempts": 0}}, "[plugins.options_plugin] retry={'attempts': 0}: invalid value"),
        ({"tag": []}, "[plugins.options_plugin] tag: there is no such option; did you mean 'tags'?"),
    ],
)
def test_an_error_names_the_table_of_the_file(values: dict[str, Any], message: str) -> None:
    [error] = errors(given(file={NAME: {"name": "a"} | values}))
    assert error.startswith(message)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (f"{VARIABLE}_PORT", f"{VARIABLE}_PORT='x': invalid value; expected integer"),
        (f"{VARIABLE}_PROT", f"{VARIABLE}_PROT: there is no such option; did you mean '{VARIABLE}_PORT'?"),
        ("FURIOSA_LLM_PLUGIN_OPTION_PLUGIN_PORT", "there is no such plugin; did you mean 'options_plugin'?"),
        ("FURIOSA_LLM_PLUGIN_METRICS_PORT", "the plugin 'metrics' has no options"),
    ],
)
def test_an_error_names_the_variable(variable: str, message: str) -> None:
    [error] = errors(given(f"{NAME}.name=a", environment={variable: "x"}))
    assert message in error


def test_a_name_without_a_plugin_or_without_options_is_refused() -> None:
    first, second = errors(given(f"{NAME}.name=a", "option_plugin.port=1", "metrics.port=1"))
    assert re.fullmatch(
        r"--plugin-option option_plugin\.port: there is no such plugin; did you mean 'options_plugin'\? "
        r"\(plugins with options: .*options_plugin\)",
        first,
    )
    assert second == "--plugin-option metrics.port: the plugin has no options"


def test_values_of_the_file_for_a_disabled_plugin_have_no_effect() -> None:
    environment = {f"{VARIABLE}_PORT": "x"}
    given(environment=environment, file={NAME: {"port": "x"}}, disabled=(NAME,)).check_options()
    assert errors(given(f"{NAME}.port=1", disabled=(NAME,))) == (
        "--plugin-option options_plugin.port: the plugin is disabled",
    )


def test_a_secret_is_neither_shown_nor_in_an_error() -> None:
    secrets = {f"{VARIABLE}_TOKEN": "hunter2"}
    plugins = given(f"{NAME}.name=a", environment=secrets)
    assert value_of(plugins).token == "hunter2"
    assert "hunter2" not in msgspec.json.encode(plugins.reports, enc_hook=str).decode()
    assert "hunter2" not in repr(plugins.config)
    assert [each for each in plugins.secret_variables() if VARIABLE in each] == [f"{VARIABLE}_TOKEN"]
    [error] = errors(given(file={NAME: {"name": "a", "token": ["hunter2"]}}))
    assert error == "[plugins.options_plugin] token: invalid value; expected text (access token)"


def test_every_part_of_a_plugin_receives_its_options() -> None:
    plugins = given(f"{NAME}.name=here")
    card = ModelCard(tokenizer=".", max_model_len=8)
    assert plugins.tool_parsers.load("shown")(ParserContext()).feed("x") == [Text("here")]
    assert plugins.reasoning_parsers.load("shown")(ParserContext()).feed("x") == [Text("here")]
    grammar: Any = plugins.grammars.load("shown")
    assert grammar(GrammarContext(vocabulary=lambda: Vocabulary([]))).name == "here"
    placement: Any = plugins.placements.load("shown")
    assert placement(PlacementContext()).name == "here"
    assert plugins.chat_templates(TemplateContext(card=card)) == {"default": "here"}
    [collector] = [
        each for each in plugins.collectors(MetricsContext(model_name="m", max_model_len=8))
        if type(each).__name__ == ShownCollector.__name__
    ]  # fmt: skip
    assert collector.options.name == "here"  # type: ignore[attr-defined]
    assert value_of(plugins).name == "here"


def test_another_plugin_does_not_receive_them(tmp_path: Path) -> None:
    file = tmp_path / "second_routes.py"
    file.write_text(
        "import fllm\n@fllm.hookimpl\ndef fllm_routes(context):\n    yield ('second', context.options)\n"
    )
    config = given(f"{NAME}.name=here").config
    plugins = load_plugins(msgspec.structs.replace(config, paths=(PLUGIN, str(file))))
    assert ("second", None) in [each for group in plugins.routes(list) for each in group]


def test_an_engine_receives_only_the_options_of_plugins_that_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "only_metrics.py"
    file.write_text(
        "import msgspec, fllm\nclass FLLM_OPTIONS(msgspec.Struct):\n    url: str\n"
        "@fllm.hookimpl\ndef fllm_collectors(context):\n    return []\n"
    )
    config = given(f"{NAME}.name=here", "only_metrics.url=http://user:secret@a").config
    plugins = load_plugins(msgspec.structs.replace(config, paths=(PLUGIN, str(file))))
    plugins.check_options()
    for_engine = plugins.engine_config()
    assert [(each.name, each.value) for each in for_engine.options] == [("name", "here")]
    load_plugins(for_engine).check_engine_options()  # although `url` is missing there
    with pytest.raises(ConfigErrors, match=r"name=\.\.\.: this option is required"):
        load_plugins(msgspec.structs.replace(for_engine, options=())).check_engine_options()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    with importable(tmp_path):
        yield tmp_path


ROUTES = "import msgspec, fllm\n{}\n@fllm.hookimpl\ndef fllm_routes(): return []\n"


def test_a_name_of_two_plugins_needs_the_distribution(site: Path) -> None:
    source = ROUTES.format("class FLLM_OPTIONS(msgspec.Struct):\n    port: int = 1")
    install(site, "left", {"left_mod": source}, {"twin": "left_mod"})
    install(site, "right", {"right_mod": source}, {"twin": "right_mod"})
    base = f"{NAME}.name=a"
    assert errors(given(base, "twin.port=2")) == (
        "--plugin-option twin.port: several plugins have this name: write left:twin or right:twin",
    )
    assert errors(given(base, environment={"FURIOSA_LLM_PLUGIN_TWIN_PORT": "2"})) == (
        "FURIOSA_LLM_PLUGIN_TWIN_PORT: several plugins have such an option: "
        "use --plugin-option left:twin.port or --plugin-option right:twin.port",
    )
    plugins = given(base, "left:twin.port=2", file={"right:twin": {"port": 3}})
    plugins.check_options()
    ports = {each.distribution: each.options[0].value for each in plugins.reports if each.name == "twin"}
    assert ports == {"left": 2, "right": 3}


def test_a_disabled_plugin_leaves_its_name_to_the_other(site: Path) -> None:
    source = ROUTES.format("class FLLM_OPTIONS(msgspec.Struct):\n    port: int = 1")
    install(site, "left", {"left_mod": source}, {"twin": "left_mod"})
    install(site, "right", {"right_mod": source}, {"twin": "right_mod"})
    plugins = given(f"{NAME}.name=a", "twin.port=2", disabled=("left",))
    plugins.check_options()
    [right] = [each for each in plugins.reports if each.distribution == "right"]
    assert [option.value for option in right.options] == [2]


def test_a_plugin_whose_options_can_not_be_made_stops_the_start(site: Path) -> None:
    check = "def __post_init__(self): raise KeyError('no')"
    source = ROUTES.format(f"class FLLM_OPTIONS(msgspec.Struct):\n    port: int = 1\n    {check}")
    install(site, "left", {"left_mod": source}, {"odd": "left_mod"})
    assert errors(given(f"{NAME}.name=a")) == ("--plugin-option odd: KeyError: 'no'",)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("FLLM_OPTIONS = dict", "FLLM_OPTIONS must be a class derived from msgspec.Struct, not <class"),
        ("FLLM_OPTIONS = {'port': 1}", "FLLM_OPTIONS must be a class derived from msgspec.Struct, not {'p"),
        ("class FLLM_OPTIONS(msgspec.Struct):\n    port: 'Nowhere' = 1", "FLLM_OPTIONS: NameError: name 'N"),
        ("class FLLM_OPTIONS(msgspec.Struct):\n    port: complex = 1", "FLLM_OPTIONS: TypeError: "),
    ],
)  # fmt: skip
def test_a_broken_declaration_leaves_the_plugin_out(site: Path, declared: str, message: str) -> None:
    install(site, "broken-options", {"broken_options": ROUTES.format(declared)}, {"broken": "broken_options"})
    plugins = given(f"{NAME}.name=a", "broken.port=1")
    error = report_of(plugins, "broken").error
    assert error is not None
    assert error.startswith(message)
    [refused] = errors(plugins)
    assert re.match(r"--plugin-option broken\.port: the plugin is left out: FLLM_OPTIONS", refused)


def test_a_test_of_a_plugin_gives_it_options() -> None:
    import support.options_plugin as plugin

    plugins = plugins_with(plugin, installed=False, options={"support.options_plugin": {"name": "here"}})
    assert plugins.reports[0].options[0].value == "here"
    with pytest.raises(ConfigErrors, match=r"name=\.\.\.: this option is required"):
        plugins_with(plugin, installed=False)
