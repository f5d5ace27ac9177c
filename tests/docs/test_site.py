"""The documentation builds as a site, without a warning, and needs no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

import fllm


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        check=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    return folder


def test_the_reference_has_every_name_with_its_fields(site: Path) -> None:
    text = (site / "reference" / "fllm" / "index.html").read_text()
    documented = set(re.findall(r'id="fllm\.([A-Za-z_]+)"', text))
    missing = {name for name in fllm.__all__ if f'id="fllm.{name}"' not in text} - documented
    assert missing == set()
    assert "Maximum number of tokens to generate; 0 only computes the prompt." in text


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]* src="(https?:)?//|<link[^>]* rel="stylesheet"[^>]* href="https?:'
    )
    assert [page for page in pages if loaded.search(page.read_text())] == []


def test_links_to_files_of_the_repository_are_not_broken_links(site: Path) -> None:
    text = (site / "architecture" / "index.html").read_text()
    assert "stop_strings.py" in text
    assert 'href=""' not in text
    assert "../core/fllm/pipeline" not in text
