"""Add to the site of the documentation what is not in docs/: hooks of MkDocs.

- Pages of other folders: CONTRIBUTING.md, SECURITY.md, CHANGELOG.md and the list of the examples.
- The reference of the API: one section for each name that docs/compatibility.md promises, from docstrings.
- Links to other files lead to the repository, whose address is in pyproject.toml; without it, they are text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
REFERENCE = {
    "fllm": "fllm",
    "fllm.parsing": "parsing",
    "fllm.batching": "batching",
    "fllm.testing": "testing",
}
LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")
NAME = re.compile(r"`([A-Za-z_]+)`")


def on_config(config: Any) -> Any:
    """Set the address of the repository, which the wheel's metadata has too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    config["repo_url"] = project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text("utf-8")))
    for name, text in _reference():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to pages of the site, or to the repository."""
    target = page.file.src_uri
    source = {page: file for file, page in PAGES.items()}.get(target, f"docs/{target}")
    folder = PurePosixPath(source).parent

    def relink(match: re.Match[str]) -> str:
        path = normpath(str(folder / match[1]))
        linked = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if linked and files.get_file_from_path(linked):
            up = "../" * target.count("/")
            return f"]({up}{linked}{match[2] or ''})"
        if config["repo_url"]:
            return f"]({config['repo_url'].rstrip('/')}/blob/main/{path}{match[2] or ''})"
        return "]()"

    fenced = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    parts = [part if index % 2 else LINK.sub(relink, part) for index, part in enumerate(fenced)]
    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\)", r"\1", "".join(parts))


def _reference() -> Iterator[tuple[str, str]]:
    """Yield the pages of the reference: their names and their text."""
    text = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    for module, page in REFERENCE.items():
        section = text.partition(f"### `{module}`\n")[2].partition("\n##")[0]
        yield page, _page(module, [(group, names) for group, names in _groups(section) if names])
    table = text.partition("### Smaller modules\n")[2].partition("\n## ")[0]
    lines = [f"# Smaller modules\n{_WHERE}"]
    for row in re.findall(r"^\| `(fllm\.\w+)` \| (.*) \|$", table, re.MULTILINE):
        lines.append(f"\n## `{row[0]}`\n")
        lines += [f"\n::: {row[0]}.{name}" for name in NAME.findall(row[1])]
    yield "modules", "\n".join(lines)


_WHERE = "\nFrom the docstrings. [Compatibility](../compatibility.md) says what you may rely on.\n"


def _page(module: str, groups: list[tuple[str, list[str]]]) -> str:
    lines = [f"# `{module}`\n{_WHERE}"]
    for group, names in groups:
        lines.append(f"\n## {group}\n")
        lines += [f"\n::: {module}.{name}" for name in names]
    return "\n".join(lines)


def _groups(section: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the items of a section: a title, and the names."""
    for item in re.split(r"^- ", section, flags=re.MULTILINE):
        title, colon, names = item.partition(":")
        if colon and "`" not in title:
            yield title.strip(), NAME.findall(names)
        else:
            yield "All", NAME.findall(item)
