"""The rngd backend with the vendor's own wheels, and without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import http_server

VENDOR = ("furiosa-llm==2026.4.0", "furiosa-llm-native==2026.4.0", "furiosa-native-llm-common==2026.4.0")
DEPENDENCIES = ("fastapi==0.128.0", "starlette<0.51", "orjson", "partial-json-parser", "xxhash", "ml_dtypes")
"""Packages that the imported parts need in addition to this environment."""
INSIDE = Path(__file__).with_name("inside.py")


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vendor's wheels, which no other test can import."""
    folder = tmp_path_factory.mktemp("vendor")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, *VENDOR, *DEPENDENCIES], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"the vendor's wheels can't be had here: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.mark.packaging
def test_the_backend_keeps_the_contract_on_the_classes_of_the_vendor(vendor: Path) -> None:
    path = os.pathsep.join([str(vendor), str(INSIDE.parents[3])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", str(INSIDE)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.packaging
def test_a_missing_device_is_reported_in_one_line(vendor: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = http_server.run("serve", str(tmp_path), "--devices", "npu:0", timeout=120, PYTHONPATH=str(vendor))
    assert done.returncode == 2
    assert "the vendor's engine can't load" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_sdk_a_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = http_server.run("serve", str(tmp_path), "--devices", "npu:0")
    assert done.returncode == 2
    assert "pip install furiosa-llm" in done.stderr
