"""Metadata of the distribution that depends on where the repository is published: links and URLs.

hatchling runs it. The address is ``repository`` in ``[tool.hatch.metadata.hooks.custom]`` of
``pyproject.toml``, such as ``https://github.com/OWNER/NAME``. The README of the wheel has
absolute links to it. Without an address, relative links become their text, so that none is dead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+(?=\))")
"""Target of a link or an image that is a file of the repository."""
LINK = re.compile(r"!?\[([^\[\]]*)\]\((?![a-z]+:|#)[^)\s]+\)")
"""A link or an image with such a target; an image may be in a link."""
IMAGES = (".png", ".svg")


class PackageMetadata(MetadataHookInterface):
    """Sets the fields that ``pyproject.toml`` lists as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README and the URLs."""
        repository = str(self.config.get("repository", "")).rstrip("/")
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, repository, f"v{metadata['version']}"),
        }
        metadata["urls"] = project_urls(repository)


def absolute_links(text: str, repository: str, version: str) -> str:
    """Return a page whose links to files are absolute; without a repository, only their text."""

    def absolute(target: re.Match[str]) -> str:
        return f"{repository}/{'raw' if target[0].endswith(IMAGES) else 'blob'}/{version}/{target[0]}"

    if repository:
        return TARGET.sub(absolute, text)
    return LINK.sub(r"\1", LINK.sub(r"\1", text))


def project_urls(repository: str) -> dict[str, str]:
    """Return the addresses that package indexes list; none without a repository."""
    if not repository:
        return {}
    return {
        "Source": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
