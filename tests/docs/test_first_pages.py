"""docs/your-first-device.md and docs/your-first-dialect.md show code of examples unchanged."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

PAGES = {
    "your-first-device": ("numpy-device", "fllm_numpy"),
    "your-first-dialect": ("cohere-routes", "fllm_cohere"),
}
TEXTS = {page: (ROOT / "docs" / f"{page}.md").read_text() for page in PAGES}
BLOCKS = [
    (page, file, code)
    for page, text in TEXTS.items()
    for file, code in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "file", "code"), BLOCKS, ids=[f"{page}-{file}" for page, file, _ in BLOCKS])
def test_the_code_of_the_page_is_in_the_example(page: str, file: str, code: str) -> None:
    example, package = PAGES[page]
    directory = ROOT / "examples" / example
    source = (directory / file if "/" in file else directory / "src" / package / file).read_text()
    place = 0
    for part in code.split("...\n"):  # the page omits the code in between
        place = source.find(part, place)
        assert place >= 0, part


def test_every_code_block_of_the_pages_names_a_file() -> None:
    assert len(BLOCKS) == sum(text.count("```python\n") for text in TEXTS.values())
