"""One server with the embedded model for the session, and scripted servers for output of larger models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.http_server import Server, serving
from support.model_scripts import SCRIPTED_PLUGIN, Script, write_script

from fllm.testing import Serve


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run the default model with metrics and a tool-call parser."""
    parsers = ("--tool-call-parser", "llama3_json")
    with serving("--enable-metrics", "--max-model-len", "4096", *parsers) as running:
        yield running


@pytest.fixture(scope="session")
def scripted(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Server]:
    """Return a function that starts a server whose backend emits a script, once per script."""
    directories: dict[str, Path] = {}

    def start(script: Script, *arguments: str) -> Server:
        if script.name not in directories:
            directories[script.name] = tmp_path_factory.mktemp(script.name)
            write_script(script, directories[script.name])
        options = ("--plugin", SCRIPTED_PLUGIN, "--backend", "scripted")
        return serve(directories[script.name], *options, *arguments)

    return start
