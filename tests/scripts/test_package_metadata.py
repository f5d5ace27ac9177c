"""The README and the URLs of the wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT

PAGE = "[a](docs/a.md#x) [b](#b) [c](https://c.example/) ![d](docs/d.svg) [![e](e.png)](e.md)\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package_metadata", ROOT / "scripts/package_metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_to_files_become_absolute(script: ModuleType) -> None:
    page = script.absolute_links(PAGE, "https://git.example/o/n", "v1.0")
    assert page.startswith(
        "[a](https://git.example/o/n/blob/v1.0/docs/a.md#x) [b](#b) [c](https://c.example/) "
        "![d](https://git.example/o/n/raw/v1.0/docs/d.svg) "
        "[![e](https://git.example/o/n/raw/v1.0/e.png)](https://git.example/o/n/blob/v1.0/e.md)"
    )


def test_without_an_address_no_link_is_dead(script: ModuleType) -> None:
    assert script.absolute_links(PAGE, "", "v1.0") == "a [b](#b) [c](https://c.example/) d e\n"
    assert script.project_urls("") == {}


def test_metadata_has_both(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(PAGE)
    metadata = {"version": "1.0"}
    script.PackageMetadata(str(tmp_path), {"repository": "https://git.example/o/n/"}).update(metadata)
    assert metadata["urls"]["Source"] == "https://git.example/o/n"
    assert "https://git.example/o/n/blob/v1.0/docs/a.md" in metadata["readme"]["text"]
