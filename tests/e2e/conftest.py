"""One server on the real model for the whole session, and scripted ones for what a small model can't do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scripts import SCRIPTED_PLUGIN, Script, write_script
from serving import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded default, with everything on that can be."""
    parsers = ("--tool-call-parser", "llama3_json")
    with serving("--enable-metrics", "--max-model-len", "4096", *parsers) as running:
        yield running


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start (once each) a server whose backend says what a script says."""
    running: dict[tuple[object, ...], Server] = {}
    with ExitStack() as stack:

        def start(script: Script, *arguments: str) -> Server:
            key = (script.name, arguments)
            if key not in running:
                directory: Path = tmp_path_factory.mktemp(script.name)
                write_script(script, directory)
                options = ("--plugin", str(SCRIPTED_PLUGIN), "--backend", "scripted")
                running[key] = stack.enter_context(serving(str(directory), *options, *arguments))
            return running[key]

        yield start
