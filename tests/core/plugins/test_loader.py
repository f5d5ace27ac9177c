"""The loader, on real small distributions: each way to be broken is reported and harms nobody else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.distributions import importable, install, one_parser

from fllm import MetricsContext, ModelCard, PluginConfig, TemplateContext
from fllm.errors import ConfigError, NameConflict
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import PluginReport, Plugins, load_plugins

CARD = ModelCard(tokenizer=".", max_model_len=16)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """Where a test installs distributions."""
    with importable(tmp_path):
        yield tmp_path


def found(plugins: Plugins, distribution: str) -> PluginReport:
    [report] = [report for report in plugins.reports if report.distribution == distribution]
    return report


def load_one(site: Path, source: str) -> tuple[Plugins, PluginReport]:
    """Install one plugin of this source beside a sound one, and load; the sound one must not suffer."""
    install(site, "acme-broken", {"acme_broken": source}, {"broken": "acme_broken"})
    install(site, "acme-sound", {"acme_sound": one_parser("acme_sound", "sound")}, {"sound": "acme_sound"})
    plugins = load_plugins()
    assert found(plugins, "acme-sound").error is None
    assert "sound" in plugins.tool_parsers.names()
    return plugins, found(plugins, "acme-broken")


def test_our_own_plugins_come_by_entry_points_like_a_strangers() -> None:
    plugins = load_plugins()
    assert {report.error for report in plugins.reports} == {None}
    assert "llama3_json" in plugins.tool_parsers.names()
    assert "deepseek_r1" in plugins.reasoning_parsers.names()
    assert {"torch", "process"} <= set(plugins.backends.names())


def test_a_sound_plugin_is_reported_with_what_it_offers(site: Path) -> None:
    install(
        site, "acme", {"acme_mod": one_parser("acme_mod", "acme_json")}, {"acme": "acme_mod"}, version="2.1"
    )
    plugins = load_plugins()
    report = found(plugins, "acme")
    assert (report.name, report.version, report.source) == ("acme", "2.1", "acme_mod")
    assert report.hooks == ["fllm_tool_parsers"]
    assert report.offers == {"tool-call parser": ["acme_json"]}
    assert report.error is None
    assert plugins.tool_parsers.load("acme_json").factory.__name__ == "Parser"


HOOK = "import fllm\n@fllm.hookimpl\n"
BROKEN = {
    "a module that is not there": ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
    "a syntax error": ("def", "SyntaxError"),
    "an exception at import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "an exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "a panic at import": ("class Panic(BaseException): pass\nraise Panic('rust')", "Panic: rust"),
    "no hook": ("x = 1", "it implements no hook"),
    "a misspelt hook": (
        f"{HOOK}def fllm_tool_parser(): return []",
        "it implements 'fllm_tool_parser', which is not a hook; did you mean 'fllm_tool_parsers'?",
    ),
    "a misspelt hook without its mark": (
        "def fllm_tool_parser(): return []",
        "which is not a hook; did you mean 'fllm_tool_parsers'?",
    ),
    "a hook of a wholly unknown name": (
        f"{HOOK}def fllm_zzz(): return []",
        "which is not a hook; hooks: fllm_backends,",
    ),
    "a forgotten mark": (
        "def fllm_tool_parsers(): return []",
        "'fllm_tool_parsers' is not marked with @fllm.hookimpl",
    ),
    "a wrong argument": (f"{HOOK}def fllm_tool_parsers(contxt): return []", "contxt"),
    "a newer interface": (
        f"FLLM_API_VERSION = 2\n{HOOK}def fllm_tool_parsers(): return []",
        "needs version 2",
    ),
    "a strange version": (
        f"FLLM_API_VERSION = '1'\n{HOOK}def fllm_tool_parsers(): return []",
        "FLLM_API_VERSION must be a whole number, not '1'",
    ),
    "a hook that raises": (
        f"{HOOK}def fllm_tool_parsers(): raise ValueError('bad day')",
        "fllm_tool_parsers raised ValueError: bad day",
    ),
    "a hook that exits": (f"{HOOK}def fllm_tool_parsers(): raise SystemExit(1)", "SystemExit: 1"),
    "a hook that fails half-way": (
        f"{HOOK}def fllm_tool_parsers():\n    yield fllm.Entry('half', 'm:a')\n    1 / 0",
        "fllm_tool_parsers raised ZeroDivisionError",
    ),
    "one hook that works and one that fails": (
        f"{HOOK}def fllm_tool_parsers(): return [fllm.Entry('half', 'm:a')]\n"
        "@fllm.hookimpl\ndef fllm_reasoning_parsers(): raise ValueError('bad day')",
        "fllm_reasoning_parsers raised ValueError: bad day",
    ),
    "an entry instead of entries": (
        f"{HOOK}def fllm_tool_parsers(): return fllm.Entry('half', 'm:a')",
        "fllm_tool_parsers raised TypeError: 'Entry' object is not iterable",
    ),
    "nothing instead of entries": (
        f"{HOOK}def fllm_tool_parsers(): pass",
        "'NoneType' object is not iterable",
    ),
    "a tuple for an entry": (
        f"{HOOK}def fllm_tool_parsers(): yield ('half', 'm:a')",
        "yielded ('half', 'm:a'), not Entry(",
    ),
    "a target without an attribute": (
        f"{HOOK}def fllm_tool_parsers(): yield fllm.Entry('half', 'm')",
        "not Entry(",
    ),
    "a target that is no text": (
        f"{HOOK}def fllm_tool_parsers(): yield fllm.Entry('half', int)",
        "not Entry(",
    ),
    "a name that nobody can type": (
        f"{HOOK}def fllm_tool_parsers(): yield fllm.Entry('ha lf', 'm:a')",
        "not Entry(",
    ),
    "a backend that is a bare entry": (
        f"{HOOK}def fllm_backends(): yield fllm.Entry('half', 'm:a')",
        "not BackendEntry(",
    ),
    "devices that are text": (
        f"{HOOK}def fllm_backends(): yield fllm.BackendEntry('half', 'm:a', devices=('cpu'))",
        "devices of 'half' must be a tuple, such as ('cuda', 'cpu')",
    ),
    "options that are no Struct": (
        f"{HOOK}def fllm_backends(): yield fllm.BackendEntry('half', 'm:a', options={{'a': int}})",
        "options of 'half' must be a class derived from msgspec.Struct, not {'a': <class 'int'>}",
    ),
    "a placement that is a bare entry": (
        f"{HOOK}def fllm_placements(): yield fllm.Entry('half', 'm:a')",
        "not PlacementEntry(",
    ),
    "options of a placement that are no Struct": (
        f"{HOOK}def fllm_placements(): yield fllm.PlacementEntry('half', 'm:a', options=int)",
        "options of 'half' must be a class derived from msgspec.Struct, not <class 'int'>",
    ),
    "options of a type that is nowhere": (
        "import msgspec\nclass O(msgspec.Struct):\n    a: 'Nowhere'\n"
        f"{HOOK}def fllm_backends(): yield fllm.BackendEntry('half', 'm:a', options=O)",
        "options of 'half': NameError: name 'Nowhere' is not defined",
    ),
    "one name twice": (
        f"{HOOK}def fllm_tool_parsers(): return [fllm.Entry('half', 'm:a'), fllm.Entry('half', 'm:b')]",
        "fllm_tool_parsers yielded the name 'half' twice",
    ),
}


@pytest.mark.parametrize(("source", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_left_out_whole_and_says_why(site: Path, source: str, why: str) -> None:
    plugins, report = load_one(site, source)
    assert report.error is not None
    assert why in report.error
    assert "\n" not in report.error
    offered = {each.entry.name for registry in plugins.registries() for each in registry}
    assert "half" not in offered
    assert report.offers == {}


def test_the_hooks_of_a_plugin_that_is_left_out_are_not_called_later(site: Path) -> None:
    plugins, report = load_one(
        site,
        f"{HOOK}def fllm_tool_parsers(): 1 / 0\n@fllm.hookimpl\ndef fllm_routes(): return ['a route']",
    )
    assert report.error
    assert ["a route"] not in [*plugins.routes(list)]


def test_an_interrupt_while_a_plugin_loads_is_no_fault_of_the_plugin() -> None:
    def interrupt() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Plugins().load(Candidate("a", "a", "1", "a", interrupt))


def test_what_a_plugin_prints_at_import_goes_to_stderr(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_one(site, "print('hello from a plugin')\n" + one_parser("acme_broken", "loud"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello from a plugin" in captured.err


def test_a_plugin_may_be_an_object_of_a_module(site: Path) -> None:
    source = (
        "import fllm\nclass P:\n    @fllm.hookimpl\n    def fllm_routes(self): return ['r']\nplugin = P()"
    )
    install(site, "acme-object", {"acme_object": source}, {"object": "acme_object:plugin"})
    plugins = load_plugins()
    assert found(plugins, "acme-object").hooks == ["fllm_routes"]
    assert ["r"] in [*plugins.routes(list)]


def test_two_distributions_with_one_entry_point_name_both_load(site: Path) -> None:
    install(site, "acme-one", {"acme_one": one_parser("acme_one", "one")}, {"same": "acme_one"})
    install(site, "acme-two", {"acme_two": one_parser("acme_two", "two")}, {"same": "acme_two"})
    plugins = load_plugins()
    assert {"one", "two"} <= set(plugins.tool_parsers.names())


def test_one_module_under_two_names_is_loaded_once(site: Path) -> None:
    install(
        site, "acme", {"acme_twice": one_parser("acme_twice", "t")}, {"a": "acme_twice", "b": "acme_twice"}
    )
    plugins = load_plugins()
    errors = [report.error for report in plugins.reports if report.distribution == "acme"]
    assert errors == [None, "it is loaded already, as acme:a:acme_twice"]
    assert plugins.tool_parsers.entry("t")


def test_a_name_offered_twice_warns_and_fails_only_when_chosen(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "acme-one", {"acme_one": one_parser("acme_one", "same")}, {"one": "acme_one"})
    install(site, "acme-two", {"acme_two": one_parser("acme_two", "same")}, {"two": "acme_two"})
    plugins = load_plugins()
    with caplog.at_level(logging.WARNING):
        plugins.warn()
    assert "acme-one (plugin 'one') and acme-two (plugin 'two')" in caplog.text
    assert plugins.tool_parsers.load("llama3_json")
    with pytest.raises(NameConflict, match="--disable-plugin two"):
        plugins.tool_parsers.load("same")


@pytest.mark.parametrize("name", ["broken", "acme-broken", "Acme_Broken", "acme-broken:broken"])
def test_a_plugin_is_disabled_by_its_name_or_its_distributions(site: Path, name: str) -> None:
    install(site, "acme-broken", {"acme_broken": "1 / 0"}, {"broken": "acme_broken"})
    plugins = load_plugins(PluginConfig(disabled=(name,)))
    report = found(plugins, "acme-broken")
    assert (report.disabled, report.error) == (True, None)
    assert plugins.unmatched == []


def test_disabling_what_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plugins = load_plugins(PluginConfig(disabled=("nobody",)))
    with caplog.at_level(logging.WARNING):
        plugins.warn()
    assert plugins.unmatched == ["nobody"]
    assert "--disable-plugin nobody: there is no such plugin (found: backends, batches, bench" in caplog.text


@pytest.mark.parametrize("name", ["sound", "Acme_Sound", "acme-sound:sound"])
def test_of_a_closed_list_nothing_else_is_imported(site: Path, name: str) -> None:
    install(site, "acme-broken", {"acme_broken": "1 / 0"}, {"broken": "acme_broken"})
    install(site, "acme-sound", {"acme_sound": one_parser("acme_sound", "sound")}, {"sound": "acme_sound"})
    file = site / "mine.py"
    file.write_text("1 / 0")
    plugins = load_plugins(PluginConfig(allowed=(name,), paths=(str(file),)))
    for other in ("acme-broken", str(file)):
        report = found(plugins, other)
        assert (report.not_allowed, report.disabled, report.error) == (True, True, None)
    assert "sound" in plugins.tool_parsers.names()
    assert found(plugins, "acme-sound").error is None
    assert "llama3_json" in plugins.tool_parsers.names()
    assert not any(report.not_allowed for report in plugins.reports if "furiosa" in report.distribution)
    assert plugins.unmatched_allowed == []


def test_an_empty_closed_list_allows_only_built_in_plugins(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "acme-broken", {"acme_broken": "1 / 0"}, {"broken": "acme_broken"})
    assert found(load_plugins(PluginConfig(allowed=())), "acme-broken").not_allowed
    plugins = load_plugins(PluginConfig(allowed=("nobody", "parsers"), disabled=("acme-broken",)))
    assert not found(plugins, "acme-broken").not_allowed
    plugins.warn()
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "--allow-plugin nobody: there is no such plugin"
    ]


def test_a_broken_plugin_is_one_warning_with_its_distribution_and_version(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugins, _ = load_one(site, "1 / 0")
    with caplog.at_level(logging.WARNING):
        plugins.warn()
    assert [record.message for record in caplog.records] == [
        "plugin broken (acme-broken 1.0) is left out: ZeroDivisionError: division by zero"
    ]


@pytest.mark.parametrize("section", ["x", "fllm"])
def test_metadata_that_is_malformed_harms_only_its_own_distribution(site: Path, section: str) -> None:
    install(site, "acme-sound", {"acme_sound": one_parser("acme_sound", "sound")}, {"sound": "acme_sound"})
    broken = site / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text(f"[{section}]\nno equals sign\n")
    plugins = load_plugins()
    assert "sound" in plugins.tool_parsers.names()
    reports = [report for report in plugins.reports if report.distribution == "broken"]
    assert len(reports) == (section == "fllm")
    assert all("its entry_points.txt is malformed" in (report.error or "") for report in reports)


def test_a_file_is_a_plugin(site: Path) -> None:
    file = site / "my_plugin.py"
    file.write_text(one_parser("my_plugin", "mine"))
    plugins = load_plugins(PluginConfig(paths=(str(file),)))
    report = found(plugins, str(file))
    assert (report.name, report.source, report.error) == ("my_plugin", str(file), None)
    assert plugins.tool_parsers.load("mine")


def test_a_file_named_twice_is_one_plugin(site: Path) -> None:
    file = site / "my_plugin.py"
    file.write_text(one_parser("my_plugin", "mine"))
    plugins = load_plugins(PluginConfig(paths=(str(file), str(file))))
    assert found(plugins, str(file)).error is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("json.py", "a module named 'json' exists already; rename the file"),
        ("torch.py", "a module named 'torch' exists already; rename the file"),
        ("missing.py", "file not found:"),
        ("plugin.txt", "is not a Python file"),
        ("failing.py", "ZeroDivisionError"),
    ],
)
def test_a_file_that_can_not_be_a_plugin_is_reported(tmp_path: Path, name: str, why: str) -> None:
    file = tmp_path / name
    if name != "missing.py":
        file.write_text("1 / 0")
    report = found(load_plugins(PluginConfig(paths=(str(file),))), str(file))
    assert report.error is not None
    assert why in report.error


TEMPLATES = "import fllm\n@fllm.hookimpl\ndef fllm_chat_template(context): "


def ask(site: Path, source: str) -> object:
    install(site, "acme-templates", {"acme_templates": source}, {"acme": "acme_templates"})
    plugins = load_plugins()
    assert found(plugins, "acme-templates").error is None
    return plugins.chat_templates(TemplateContext(card=CARD))


def test_a_resolver_that_answers_wins_over_the_models_own(site: Path) -> None:
    assert ask(site, TEMPLATES + "return {'default': 'hi'}") == {"default": "hi"}


@pytest.mark.parametrize("body", ["return None", "1 / 0", "return 'hi'", "return {'default': 7}"])
def test_a_resolver_that_passes_or_fails_is_passed_over(
    site: Path, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)  # where the model's own resolver finds nothing
    assert ask(site, TEMPLATES + body) is None


def test_an_error_that_the_user_can_mend_is_passed_on(site: Path) -> None:
    with pytest.raises(ConfigError, match="mend me"):
        ask(site, TEMPLATES + "raise fllm.ConfigError('mend me')")


COLLECTOR = """
import fllm

class Listener(fllm.Collector):
    def on_request_start(self, request): pass

class Deaf: pass

@fllm.hookimpl
def fllm_collectors(context):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "heard"),
    [
        ("return [Listener()]", ["Listener"]),
        ("return [Deaf()]", []),
        ("yield Listener(); 1 / 0", []),
        ("return None", []),
    ],
)
def test_collectors_of_a_sound_hook_are_heard_and_others_logged(
    site: Path, caplog: pytest.LogCaptureFixture, body: str, heard: list[str]
) -> None:
    install(site, "acme", {"acme_metrics": COLLECTOR.format(body=body)}, {"acme": "acme_metrics"})
    collectors = load_plugins().collectors(MetricsContext(model_name="m", max_model_len=16))
    names = [type(each).__name__ for each in collectors if type(each).__module__ == "acme_metrics"]
    assert names == heard
    logged = "fllm_collectors of plugin acme:acme:acme_metrics failed" in caplog.text
    assert logged is (not heard and body != "return None")
