"""The architecture page shows the code as it is: the map, and the paths that it names."""

from __future__ import annotations

import re
import subprocess
import sys

from support.paths import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text("utf-8")


def test_the_map_is_that_of_the_docstrings() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/module_map.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_path_that_the_page_names_exists() -> None:
    paths = re.findall(r"`((?:core|api|plugins|tests|scripts|docs)/[\w./]+)`", PAGE)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_each_module_that_the_page_names_exists() -> None:
    names = set(re.findall(r"`(fllm(?:_\w+)?(?:\.\w+)+)", PAGE))
    assert len(names) > 10
    roots = [ROOT / "core", ROOT / "api", *(ROOT / "plugins").iterdir()]
    assert [name for name in sorted(names) if not any(exists(root, name) for root in roots)] == []


def exists(root: object, name: str) -> bool:
    """Return whether a dotted name is a module or package, or the attribute of one."""
    path = f"{root}/{name.replace('.', '/')}"
    parent = path.rpartition("/")[0]
    return any(
        (ROOT / candidate).exists()
        for candidate in (f"{path}.py", f"{path}/__init__.py", f"{parent}.py", f"{parent}/__init__.py")
    )
