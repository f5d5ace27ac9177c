"""What is said if the process that loads or checks plugins does not end as it should."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from fllm.errors import PluginError
from fllm_api.cli.plugins.packages import verification
from fllm_api.cli.plugins.packages.verification import LoadedPlugins, Verification

WARNS = "import sys; sys.stderr.write('furiosa-llm: warning: a change is not complete\\n');"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import sys; sys.exit('furiosa-llm: error: no')",
            "ended with status 1, while a plugin had control: ",
        ),
        (f"{WARNS} sys.stderr.write('furiosa-llm: error: it is wrong'); sys.exit(2)", "^it is wrong$"),
        (
            f"{WARNS} import os; os._exit(0)",
            "^`furiosa-llm plugins` ended with status 0, while a plugin had control$",
        ),
        (f"{WARNS} sys.stderr.write('last words'); sys.exit(3)", "ended with status 3, .*: last words$"),
        ("import os; os.kill(os.getpid(), 11)", "^`furiosa-llm plugins` ended with signal 11, "),
        ("import time; time.sleep(60)", r"^`furiosa-llm plugins` did not end within 0\.5 s$"),
    ],
)
def test_the_reason_is_one_line(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(code)
    monkeypatch.setattr(verification, "PYTHON", (sys.executable, str(program)))
    monkeypatch.setattr(verification, "TIMEOUT_SECONDS", 0.5 if "sleep" in code else 60)
    with pytest.raises(PluginError, match=reason):
        Verification([]).loaded()


def test_a_plugin_that_is_slow_to_load_is_named() -> None:
    report = {"name": "acme", "distribution": "acme", "version": "1.0", "hooks": ["fllm_routes"]}
    content = {"plugins": [report, {**report, "name": "slow", "seconds": 3.0}], "conflicts": []}
    assert list(msgspec.convert(content, LoadedPlugins).offers("acme")) == [
        ("acme", "hooks: fllm_routes"),
        ("slow", "hooks: fllm_routes (slow to load: 3.0 s)"),
    ]
