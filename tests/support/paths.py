"""Where things are, wherever a test lies in the tree."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
SHARED = ROOT.parent / "shared"
"""Inputs of other projects, beside the repository; tests skip where they are absent."""
