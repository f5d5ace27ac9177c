"""Small real distributions: built with hatchling, unpacked like by an installer, importable."""

from __future__ import annotations

import sys
import textwrap
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hatchling.builders.wheel import WheelBuilder

ONE_PARSER = """
import fllm

class Parser:
    def __init__(self, context): pass
    def feed(self, text): return [fllm.Text(text)] if text else []
    def finish(self): return []

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("{name}", "{module}:Parser", "A third-party parser.")
"""


def one_parser(module: str, name: str) -> str:
    """Return the source of a plugin with one tool-call parser."""
    return ONE_PARSER.format(module=module, name=name)


def install(
    site: Path,
    distribution: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, str],
    version: str = "1.0",
) -> None:
    """Build a wheel of these modules (name to source) and unpack it, with its metadata, into ``site``."""
    with TemporaryDirectory() as made:
        wheel = build_wheel(Path(made), distribution, modules, entry_points, version)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def build_wheel(
    directory: Path,
    distribution: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, str],
    version: str = "1.0",
    dependencies: Sequence[str] = (),
) -> Path:
    """Build a wheel of these modules; a name may have a path, such as ``acme/plugin``."""
    with TemporaryDirectory() as made:
        root = Path(made)
        for name, source in modules.items():
            file = root / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(source))
        points = "\n".join(f'"{name}" = "{target}"' for name, target in entry_points.items())
        (root / "pyproject.toml").write_text(
            f'[project]\nname = "{distribution}"\nversion = "{version}"\n'
            f"dependencies = {list(dependencies)}\n"
            f"[project.entry-points.fllm]\n{points}\n"
            "[tool.hatch.build.targets.wheel]\ninclude = ['*.py']\n"
        )
        [wheel] = WheelBuilder(str(root)).build(directory=str(directory), versions=["standard"])
        return Path(wheel)


@contextmanager
def importable(site: Path) -> Iterator[None]:
    """Put a directory on ``sys.path``; on exit, unload the modules imported from it."""
    before = set(sys.modules)
    sys.path.insert(0, str(site))
    try:
        yield
    finally:
        sys.path.remove(str(site))
        for name in set(sys.modules) - before:
            if str(site) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
