"""``furiosa-llm plugins new``: a small whole distribution to begin with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rich_click as click
from jinja2 import Environment, StrictUndefined

from fllm.errors import ConfigError
from fllm_api.build_info import DISTRIBUTION
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_OPTIONS
from fllm_api.cli.param_types import plugins_of
from fllm_api.cli.plugins.naming import PluginNames, derive_names
from fllm_api.cli.plugins.plugin_kinds import KINDS, PluginKind

TEMPLATES = Path(__file__).with_name("templates")
SUFFIX = ".jinja"
MODULE = "__module__"
"""Stands in the paths of templates for the name of the package."""
CHECKS = (f"{DISTRIBUTION}[testing]", "mypy>=1.18", "ruff>=0.14")

# Other signs than usual: chat templates, and the workflows of GitHub, have those.
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


@click.command("new", params=PLUGIN_OPTIONS, context_settings=CONTEXT_SETTINGS)
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND", help=f"One of {', '.join(KINDS)}.")
@click.argument("name", help="Of the distribution; the module's, and what users pick it by, follow from it.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="./NAME",
    help="Where to write it; a new or an empty one.",
)
@click.pass_context
def new(ctx: click.RichContext, /, kind: str, name: str, directory: Path | None, **_: Any) -> None:
    """Write a distribution with a plugin that works, its tests and their workflow: begin with this."""
    names = derive_names(name, KINDS[kind], plugins_of(ctx))
    target = directory or Path(name)
    _check_free(target)
    files = dict(rendered(kind, names))
    write(target, files)
    click.echo(_next_steps(target, files, names, KINDS[kind]))


def rendered(kind: str, names: PluginNames) -> Iterator[tuple[str, str]]:
    """The path and the text of each file."""
    values = _values(names, KINDS[kind])
    for part in ("common", kind):
        for file in sorted((TEMPLATES / part).rglob("*" + SUFFIX)):
            path = file.relative_to(TEMPLATES / part).as_posix().removesuffix(SUFFIX)
            text = _JINJA.from_string(file.read_text(encoding="utf-8")).render(values)
            yield path.replace(MODULE, names.module), text


def write(target: Path, files: dict[str, str]) -> None:
    """Write the files; none that exists is touched."""
    try:
        for path, text in files.items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
    except OSError as error:
        raise ConfigError(f"{target} can't be written: {error}") from error


def _values(names: PluginNames, kind: PluginKind) -> dict[str, Any]:
    place = {"module": names.module, "name": names.name}
    series = ".".join(version(DISTRIBUTION).split(".")[:2])
    return {
        "name": names.name,
        "module": names.module,
        "base": names.base,
        "cls": names.cls,
        "lower": names.name.lower(),
        "upper": names.name.upper(),
        "summary": kind.summary,
        "serve": kind.serve.format(**place),
        "note": kind.note.format(**place),
        "dependencies": sorted((f"{DISTRIBUTION}>={series}", *kind.dependencies)),
        "test_dependencies": sorted((*CHECKS, *kind.test_dependencies)),
    }


def _check_free(target: Path) -> None:
    try:
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ConfigError(f"{target} can't be read: {error}") from error
    if taken:
        raise ConfigError(
            f"{target} exists and is not empty; nothing was written (--directory names another)"
        )


def _next_steps(target: Path, files: dict[str, str], names: PluginNames, kind: PluginKind) -> str:
    steps = (
        f"cd {shlex.quote(str(target))}",
        "python -m pip install --editable '.[test]'",
        "pytest",
        "furiosa-llm plugins check .",
        *kind.serve.format(module=names.module, name=names.name).splitlines(),
    )
    return "\n".join([f"Wrote {len(files)} files to {target}. Next:", "", *(f"  {step}" for step in steps)])
