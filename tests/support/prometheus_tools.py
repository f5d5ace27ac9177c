"""Run ``promtool`` and ``prometheus``, and query a running Prometheus."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from support.paths import ROOT

from fllm.engine_host.parent_death import ending_with

UNPACKED = ROOT / "build/prometheus/usr/bin"
"""Directory of the programs that scripts/ci-tools downloads."""


def tool(name: str) -> str:
    """Return the path of a program; without it, skip the test, except in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        hint = f"{name} is not installed; scripts/ci-tools fetches it on Debian"
        assert not os.environ.get("FLLM_CI"), hint
        pytest.skip(hint)
    return found


def promtool(*arguments: str, page: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``promtool`` to its end."""
    command = [tool("promtool"), *arguments]
    return subprocess.run(command, input=page, capture_output=True, text=True, timeout=120, cwd=ROOT)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url = url
        self._process = process
        self._log = log

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of one API response."""
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[float]:
        """Return the current values of an expression."""
        return [float(sample["value"][1]) for sample in self.ask("query", query=expression)["result"]]

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not self._holds(condition):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self._log.read_text()}"
            time.sleep(0.2)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except URLError:  # not listening yet, or not ready
            return False


@contextmanager
def running_prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes one server and evaluates the rules every second."""
    config = folder / "prometheus.yml"
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    for original, replacement in (
        ("15s", "1s"),
        ("server:8000", target),
        ("rules.yml", str(ROOT / "deploy/prometheus/rules.yml")),
    ):
        assert original in text
        text = text.replace(original, replacement)
    config.write_text(text)
    address = f"127.0.0.1:{_free_port()}"
    log = folder / "prometheus.log"
    command = [
        tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(ending_with(os.getpid(), command), stdout=output, stderr=output)
    try:
        yield Prometheus(f"http://{address}", process, log)
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
