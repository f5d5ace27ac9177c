"""docs/compatibility.md lists exactly the public names, and examples and documentation import only those."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator

import pytest
from support.paths import ROOT

import fllm
import fllm.batching
import fllm.parsing
import fllm.testing

PAGE = (ROOT / "docs" / "compatibility.md").read_text()
SECTIONS = dict(re.findall(r"^### `([\w.]+)`\n((?:(?!##).*\n)*)", PAGE, re.MULTILINE))
TABLE = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(r"^\| `([\w.]+)` \| (.+) \|$", PAGE, re.MULTILINE)
}


PACKAGES = (fllm, fllm.parsing, fllm.batching, fllm.testing)


@pytest.mark.parametrize("module", PACKAGES, ids=lambda each: each.__name__)
def test_the_page_lists_the_public_names_of_a_package(module: object) -> None:
    listed = re.findall(r"`(\w+)`", SECTIONS[getattr(module, "__name__", "")])
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(getattr(module, "__all__", ()))


@pytest.mark.parametrize("module", TABLE)
def test_the_names_in_the_table_exist(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in TABLE[module] if not hasattr(found, name)] == []


def published_code() -> Iterator[tuple[str, str]]:
    """Yield all Python code in examples, templates and documentation, with its location."""
    for file in [*ROOT.glob("examples/**/*.py"), *ROOT.glob("api/**/templates/**/*.py.jinja")]:
        code = file.read_text()
        yield str(file.relative_to(ROOT)), re.sub(r"<<\w+>>", "placeholder", code)
    excerpts = {ROOT / "docs" / f"your-first-{page}.md" for page in ("device", "dialect")}
    for file in {ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")} - excerpts:
        for code in re.findall(r"^```python\n(.*?)^```$", file.read_text(), re.MULTILINE | re.DOTALL):
            yield str(file.relative_to(ROOT)), code


def imported(code: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of each import from this project."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fllm":
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_published_code_imports_only_public_names() -> None:
    public = {(module, name) for module, names in TABLE.items() for name in names}
    public |= {(each.__name__, name) for each in PACKAGES for name in each.__all__}
    found = {(where, pair) for where, code in published_code() for pair in imported(code)}
    assert len(found) > 50
    assert sorted(each for each in found if each[1] not in public) == []
