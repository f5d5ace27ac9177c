"""Write the map of docs/architecture.md: one line for each package and module, from its docstring.

scripts/module_map.py           write it
scripts/module_map.py --check   exit with 1 if the page has another one
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- map: written by scripts/module_map.py -->\n", "<!-- end of map -->"


def packages() -> list[Path]:
    """Return the top packages, by their folders."""
    return sorted(path.parent for path in ROOT.glob("*/fllm*/__init__.py")) + sorted(
        path.parent for path in ROOT.glob("plugins/*/fllm*/__init__.py")
    )


def summary(file: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    if not docstring:
        raise SystemExit(f"{file.relative_to(ROOT)} has no docstring")
    return docstring.partition("\n")[0].replace("](", "]\\(")


def entries(folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a package: its own, its modules, then its packages."""
    yield entry(folder / "__init__.py", f"{folder.name}/", depth)
    for file in sorted(folder.glob("*.py")):
        if file.name not in ("__init__.py", "__main__.py"):
            yield entry(file, file.name, depth + 1)
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from entries(inner, depth + 1)


def entry(file: Path, name: str, depth: int) -> str:
    """Return one line of the list, with a link to the file or folder."""
    target = file.parent if name.endswith("/") else file
    link = Path("..") / target.relative_to(ROOT)
    return f"{'  ' * depth}- [`{name}`]({link.as_posix()}) {summary(file)}"


def written(page: str) -> str:
    """Return the page with the map of today."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = [line for package in packages() for line in entries(package)]
    return head + BEGIN + "\n".join(["", *lines, "", END]) + tail


def main() -> int:
    """Write or check the map."""
    page = PAGE.read_text("utf-8")
    if "--check" in sys.argv:
        if page == written(page):
            return 0
        print("docs/architecture.md: the map is not that of the code; run scripts/module_map.py")
        return 1
    PAGE.write_text(written(page), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
