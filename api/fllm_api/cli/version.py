"""``furiosa-llm version``: print version numbers."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata

import rich_click as click

from fllm_api.build_info import DISTRIBUTION


@click.command("version")
@click.option("--full", is_flag=True, help="Also print the versions of Python and of the dependencies.")
def version(full: bool) -> None:
    """Print the version."""
    click.echo(f"furiosa-llm {metadata.version(DISTRIBUTION)}")
    if full:
        click.echo(f"python {platform.python_version()}")
        for name, installed in installed_dependencies():
            click.echo(f"{name} {installed}")


def installed_dependencies() -> Iterator[tuple[str, str]]:
    """Yield the name and the installed version of each dependency, or the extra that installs it."""
    for requirement in metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, f"not installed (extra {extra[1]})" if extra else "not installed"
