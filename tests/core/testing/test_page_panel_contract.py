"""The contract of panels: a panel passes, and each violation is detected."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fllm
from fllm.testing import PagePanelContract, run_contract

SCRIPT = "export function mount(element, page) { element.textContent = page.theme; }\n"


@fllm.hookimpl
def fllm_page_panels() -> Iterable[fllm.PagePanel]:
    yield fllm.PagePanel("theme", "Theme", SCRIPT)


class TestThemePanel(PagePanelContract):
    plugin = sys.modules[__name__]


def failed(*panels: Any) -> set[str]:
    """Return the tests that a plugin with these panels fails."""
    module = ModuleType("panels")
    module.fllm_page_panels = fllm.hookimpl(lambda: panels, specname="fllm_page_panels")  # type: ignore[attr-defined]

    class Checked(PagePanelContract):
        plugin = module

    return {result.test for result in run_contract(Checked) if result.error is not None}


@pytest.mark.parametrize(
    ("script", "test"),
    [
        ("function mount() {}", "each script exports mount"),
        ("export function mounted() {}", "each script exports mount"),
        (f'import x from "https://cdn.example/x.js";\n{SCRIPT}', "no script loads from another host"),
        (f"{SCRIPT}fetch('//example.com/');", "no script loads from another host"),
        (f"{SCRIPT}eval('1');", "no script needs what the policy of the page stops"),
        (f"{SCRIPT}new Function('x');", "no script needs what the policy of the page stops"),
        (f"{SCRIPT}`<p style='x'>`;", "no script needs what the policy of the page stops"),
        (f"{SCRIPT}`<p onclick='x'>`;", "no script needs what the policy of the page stops"),
        (f"{SCRIPT}//{'x' * 600_000}", "each script is small"),
    ],
)
def test_a_violation_is_detected(script: str, test: str) -> None:
    assert failed(fllm.PagePanel("p", "P", script)) == {test}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_wrong_syntax_is_detected() -> None:
    assert failed(fllm.PagePanel("p", "P", "export function mount( {}")) == {"each script has valid syntax"}


@pytest.mark.parametrize(
    "script",
    [
        "export async function mount() {}",
        "export const mount = () => {};",
        "const show = () => {};\nexport { show as mount };",
        "const mount = () => {};\nexport { mount };",
    ],
)
def test_every_form_of_an_export_passes(script: str) -> None:
    assert failed(fllm.PagePanel("p", "P", script)) == set()


@pytest.mark.parametrize(
    "panel",
    [
        "a text",
        fllm.PagePanel("../x", "X", SCRIPT),
        fllm.PagePanel("x", " ", SCRIPT),
        fllm.PagePanel("x", "X", ""),
        fllm.PagePanel("x", "X", Path("/nowhere/panel.js")),
    ],
)
def test_an_invalid_panel_is_no_panel(panel: Any) -> None:
    assert failed(panel) == {"the hook yields panels"}


def test_names_are_unique() -> None:
    panel = fllm.PagePanel("x", "X", SCRIPT)
    assert failed(panel, panel) == {"the hook yields panels"}
