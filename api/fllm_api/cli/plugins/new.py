"""``furiosa-llm plugins new``: create the project of a new plugin from templates."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rich_click as click
from jinja2 import Environment, StrictUndefined

from fllm.errors import ConfigError
from fllm.plugins.hooks import API_VERSION
from fllm_api.build_info import DISTRIBUTION
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_OPTIONS
from fllm_api.cli.plugins.naming import PluginNames, derive_names
from fllm_api.cli.plugins.plugin_kinds import KINDS, PluginKind

TEMPLATES = Path(__file__).with_name("templates")
SUFFIX = ".jinja"
MODULE = "__module__"
"""Placeholder of the package name in the paths of templates."""
TEST_DEPENDENCIES = (f"{DISTRIBUTION}[testing]", "mypy>=1.18", "ruff>=0.14")

# Not Jinja's default delimiters, because chat templates and GitHub workflows contain those.
_JINJA = Environment(
    variable_start_string="<<",
    variable_end_string=">>",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<#",
    comment_end_string="#>",
    keep_trailing_newline=True,
    undefined=StrictUndefined,
    autoescape=False,
)


@click.command("new", params=[*PLUGIN_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument(
    "kind", type=click.Choice(list(KINDS)), metavar="KIND", help=f"Kind of plugin: {', '.join(KINDS)}."
)
@click.argument(
    "name", help="Name of the distribution. The names of the module and of the entry are derived from it."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="./NAME",
    help="Directory to write to. It must be empty or not exist.",
)
@click.pass_context
def new(ctx: click.RichContext, /, kind: str, name: str, directory: Path | None, **_: Any) -> None:
    """Create a project with a working plugin, its tests and a CI workflow."""
    names = derive_names(name, KINDS[kind], plugins_of(ctx))
    target = directory or Path(name)
    _check_empty(target)
    files = dict(render(kind, names))
    write_files(target, files)
    click.echo(_next_steps(target, files, names, KINDS[kind]))


def render(kind: str, names: PluginNames) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file."""
    values = _values(names, KINDS[kind])
    for part in ("common", kind):
        for file in sorted((TEMPLATES / part).rglob("*" + SUFFIX)):
            path = file.relative_to(TEMPLATES / part).as_posix().removesuffix(SUFFIX)
            text = _JINJA.from_string(file.read_text(encoding="utf-8")).render(values)
            yield path.replace(MODULE, names.module), text


def write_files(target: Path, files: dict[str, str]) -> None:
    """Write the files. Raise `ConfigError` instead of overwriting a file."""
    try:
        for path, text in files.items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
    except OSError as error:
        raise ConfigError(f"can't write to {target}: {error}") from error


def _values(names: PluginNames, kind: PluginKind) -> dict[str, Any]:
    values = {"module": names.module, "name": names.name}
    release = version(DISTRIBUTION).split(".")
    bounds = f">={'.'.join(release[:2])},<{int(release[0]) + 1}"  # docs/compatibility.md: kept until then
    return {
        "name": names.name,
        "module": names.module,
        "base": names.base,
        "cls": names.cls,
        "lower": names.name.lower(),
        "upper": names.name.upper(),
        "summary": kind.summary,
        "page": kind.page,
        "api_version": API_VERSION,
        "serve": kind.serve.format(**values),
        "note": kind.note.format(**values),
        "dependencies": sorted((f"{DISTRIBUTION}{bounds}", *kind.dependencies)),
        "test_dependencies": sorted((*TEST_DEPENDENCIES, *kind.test_dependencies)),
    }


def _check_empty(target: Path) -> None:
    try:
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ConfigError(f"can't read {target}: {error}") from error
    if taken:
        raise ConfigError(f"{target} is not empty, so nothing was written; choose another --directory")


def _next_steps(target: Path, files: dict[str, str], names: PluginNames, kind: PluginKind) -> str:
    steps = (
        f"cd {shlex.quote(str(target))}",
        "python -m pip install --editable '.[test]'",
        "pytest",
        "furiosa-llm plugins check .",
        *kind.serve.format(module=names.module, name=names.name).splitlines(),
    )
    return "\n".join([f"Wrote {len(files)} files to {target}. Next:", "", *(f"  {step}" for step in steps)])
