"""The examples of docs/clients.md, for a server of a test."""

from __future__ import annotations

import re

from support.http_server import Server
from support.paths import ROOT

PAGE = ROOT / "docs" / "clients.md"


def example(heading: str, language: str, server: Server) -> str:
    """Return the first block of a section of the page, with the address of the server."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    return blocks[0].replace("http://localhost:8000", server.url)
