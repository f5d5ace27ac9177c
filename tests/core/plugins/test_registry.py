"""Names to objects, imported only when one is chosen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fllm import BackendEntry, Entry
from fllm.errors import NameConflict, PluginError, UnknownName, format_error
from fllm.plugins.registry import Registry


def registry(*entries: Entry) -> Registry:
    made = Registry("tool-call parser")
    for entry in entries:
        made.add(entry, plugin="acme", distribution="acme-parsers")
    return made


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on ``sys.path``, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_only_the_chosen_entry_is_imported(code: Path) -> None:
    (code / "chosen_one.py").write_text("class Parser: pass")
    (code / "other_one.py").write_text("raise RuntimeError('nobody asked')")
    names = registry(Entry("a", "chosen_one:Parser"), Entry("b", "other_one:Parser"))
    assert names.load("a").__name__ == "Parser"
    assert "other_one" not in sys.modules


def test_a_target_may_be_an_attribute_of_an_attribute(code: Path) -> None:
    (code / "nested_one.py").write_text("class Parser:\n    @classmethod\n    def make(cls): return 'made'")
    assert registry(Entry("a", "nested_one:Parser.make")).load("a")() == "made"


def test_names_are_sorted_and_entries_follow_them() -> None:
    names = registry(Entry("zeta", "m:a"), Entry("alpha", "m:b"))
    assert names.names() == ["alpha", "zeta"]
    assert [each.entry.name for each in names] == ["alpha", "zeta"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    names = registry(Entry("llama3_json", "m:a"), Entry("hermes", "m:b"))
    with pytest.raises(UnknownName) as caught:
        names.entry("lama3_json")
    assert caught.value.message == (
        "there is no tool-call parser 'lama3_json'; did you mean 'llama3_json'? "
        "(registered: hermes, llama3_json)"
    )


def test_an_unknown_name_among_none_says_so() -> None:
    with pytest.raises(UnknownName, match=r"\(registered: none\)"):
        registry().entry("hermes")


def test_a_name_offered_twice_is_an_error_only_when_chosen() -> None:
    names = registry(Entry("a", "m:a"), Entry("b", "m:b"))
    names.add(Entry("a", "n:a"), plugin="better", distribution="better-parsers")
    assert names.entry("b").target == "m:b"
    with pytest.raises(NameConflict) as caught:
        names.entry("a")
    assert "acme-parsers (plugin 'acme') and better-parsers (plugin 'better')" in caught.value.message
    assert "--disable-plugin better " in caught.value.message


def test_rivals_of_one_plugin_name_are_told_apart_by_distribution() -> None:
    names = registry(Entry("a", "m:a"))
    names.add(Entry("a", "n:a"), plugin="acme", distribution="better-parsers")
    with pytest.raises(NameConflict, match="--disable-plugin better-parsers:acme "):
        names.entry("a")


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("", "broken_one:Parser", "has no attribute 'Parser'"),
        ("import nowhere_to_be_found", "broken_one:Parser", "No module named 'nowhere_to_be_found'"),
        ("1 / 0", "broken_one:Parser", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "broken_one:Parser", "SystemExit: 3"),
        ("Parser = 7", "broken_one:Parser", "is a int, which can't be called"),
        ("def", "broken_one:Parser", "SyntaxError"),
        ("", "missing_one:Parser", "No module named 'missing_one'"),
    ],
)
def test_a_target_that_fails_to_load_names_its_distribution(
    code: Path, source: str, target: str, why: str
) -> None:
    (code / "broken_one.py").write_text(source)
    with pytest.raises(PluginError) as caught:
        registry(Entry("a", target)).load("a")
    assert f"the tool-call parser 'a' of acme-parsers ({target})" in caught.value.message
    assert why in caught.value.message


def test_a_backend_entry_is_isolated_unless_it_says_otherwise() -> None:
    assert BackendEntry("torch", "m:a", devices=("cpu",)).isolated


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\n  two"), "ValueError: one two"),
        (ValueError(), "ValueError"),
        (PluginError("said already"), "said already"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, line: str) -> None:
    assert format_error(error) == line
