"""All relative links in the documentation have a target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]


def anchors(page: Path) -> Iterator[str]:
    """Yield the anchors of the headings, as GitHub generates them."""
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_has_a_target(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in set(anchors(target)), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_long_page_begins_with_its_contents(page: Path) -> None:
    """Two screens are about 120 lines. A changelog is read from the top, the README begins with a try."""
    lines = page.read_text().splitlines()
    if len(lines) > 120 and page.name not in ("CHANGELOG.md", "CONTRIBUTING.md"):
        assert (
            len(
                [
                    line
                    for line in lines[: 80 if page == ROOT / "README.md" else 40]
                    if re.match(r"\s*- \[.*\]\(#", line)
                ]
            )
            >= 3
        )
