"""The contract that every plugin with panels of the page must pass."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import ClassVar

from fllm.server_description import PagePanel
from fllm.testing.plugins import plugins_with

MAX_BYTES = 512 * 1024
"""Maximum size of a script."""
CHECK_SECONDS = 30.0
_MOUNT = re.compile(
    r"export\s+(default\s+)?((async\s+)?function|const|let|var)\s+mount\b|export\s*\{[^}]*\bmount\b[^}]*\}"
)
_ELSEWHERE = re.compile(
    r"""(?:\bfrom|\bimport|\bfetch|\.src\s*=|\.href\s*=)\s*(?:\(\s*)?["'`](?:https?:|wss?:)?//[^"'`]*"""
)
_FORBIDDEN = {
    re.compile(r"\beval\s*\("): "eval()",
    re.compile(r"\bnew\s+Function\s*\("): "new Function()",
    re.compile(r"""\bset(?:Timeout|Interval)\s*\(\s*["'`]"""): "a timer that is given code as text",
    re.compile(r"""<\w[^<>]*\sstyle\s*="""): "a `style` attribute; set `element.style.NAME`, or a class",
    re.compile(
        r"""setAttribute\(\s*["']style"""
    ): "a `style` attribute; set `element.style.NAME`, or a class",
    re.compile(r"""<\w[^<>]*\son\w+\s*=\s*["']"""): "an attribute with code; use addEventListener",
    re.compile(r"<script\b"): "a <script> element",
}
"""What the policy of the page stops, and what a message says about it."""


class PagePanelContract:
    """Every plugin with the hook `fllm_page_panels` passes this.

    If Node.js is installed, the syntax of the scripts is checked, too.
    """

    plugin: ClassVar[object]
    """The module or object that implements the hook."""

    def panels(self) -> Sequence[PagePanel]:
        """Return the panels of the plugin."""
        return plugins_with(self.plugin, installed=False).page_panels()

    def test_the_hook_yields_panels(self) -> None:
        assert self.panels(), "the page has no panel of this plugin; the log says why"

    def test_each_script_exports_mount(self) -> None:
        for name, script in self._scripts():
            assert _MOUNT.search(script), (
                f"{name!r} does not export `mount`: export function mount(element, page) {{ ... }}"
            )

    def test_no_script_loads_from_another_host(self) -> None:
        for name, script in self._scripts():
            found = _ELSEWHERE.search(script)
            assert found is None, (
                f"the page loads nothing from other hosts; {name!r} has {found and found[0]!r}"
            )

    def test_no_script_needs_what_the_policy_of_the_page_stops(self) -> None:
        for name, script in self._scripts():
            for pattern, what in _FORBIDDEN.items():
                found = pattern.search(script)
                assert found is None, (
                    f"the policy of the page stops {what}: {name!r} has {found and found[0]!r}"
                )

    def test_each_script_is_small(self) -> None:
        for name, script in self._scripts():
            size = len(script.encode())
            assert size <= MAX_BYTES, f"the script of {name!r} has {size} bytes; {MAX_BYTES} at most"

    def test_each_script_has_valid_syntax(self) -> None:
        node = shutil.which("node")
        for name, script in self._scripts() if node else ():
            done = subprocess.run(
                [str(node), "--input-type=module", "--check"],
                input=script,
                capture_output=True,
                text=True,
                timeout=CHECK_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"the script of {name!r} is not valid: {done.stderr.strip()[:500]}"

    def _scripts(self) -> Iterator[tuple[str, str]]:
        for panel in self.panels():
            yield panel.name, panel.read()
