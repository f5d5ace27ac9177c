"""Plugins under test, loaded with or without the installed ones."""

from collections.abc import Iterable
from importlib import import_module
from types import SimpleNamespace

import pytest

import fllm
from fllm import Entry, PluginError
from fllm.testing import plugins_with


class Plugin:
    @fllm.hookimpl
    def fllm_tool_parsers(self) -> Iterable[Entry]:
        return [Entry("mine", f"{__name__}:Whole")]


def test_a_plugin_is_loaded_with_or_without_the_installed_ones() -> None:
    assert {"mine", "llama3_json"} <= set(plugins_with(Plugin()).tool_parsers.names())
    assert plugins_with(Plugin(), installed=False).tool_parsers.names() == ["mine"]


def test_a_broken_plugin_raises_an_error() -> None:
    with pytest.raises(PluginError, match="SimpleNamespace: it implements no hook"):
        plugins_with(SimpleNamespace())


def test_a_plugin_that_is_installed_is_not_added_twice() -> None:
    parsers = import_module("fllm_parsers.plugin")
    assert plugins_with(parsers).tool_parsers.names() == plugins_with().tool_parsers.names()
