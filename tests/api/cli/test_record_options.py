"""The options ``--record*`` and ``--reload``: what is wrong is one line, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.http_server import run

from fllm.config import PluginConfig
from fllm.errors import ConfigError
from fllm.plugins.loader import load_plugins
from fllm_api.cli.serve import check_reload


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--record", "/nowhere/samples.jsonl"), "--record /nowhere/samples.jsonl can't be written"),
        (("--record-redact", "a"), "--record-redact requires --record FILE"),
        (("--record", "{file}", "--record-redact", "("), "'(' is not a regular expression"),
        (("--record", "{file}", "--record-redact", "a*"), "'a*' matches an empty text"),
        (("--reload",), "--reload: there is nothing to reload"),
    ],
)
def test_an_invalid_option_is_one_line(options: tuple[str, ...], says: str, tmp_path: Path) -> None:
    file = str(tmp_path / "samples.jsonl")
    done = run("serve", *(option.replace("{file}", file) for option in options))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_file_can_be_reloaded_with_one_model(tmp_path: Path) -> None:
    file = tmp_path / "reloadable_plugin.py"
    file.write_text("import fllm\n@fllm.hookimpl\ndef fllm_routes():\n    return []\n")
    plugins = load_plugins(PluginConfig(paths=(str(file),)))
    check_reload(plugins, several=False)
    with pytest.raises(ConfigError, match="--reload works with one model"):
        check_reload(plugins, several=True)
