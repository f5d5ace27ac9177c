"""``furiosa-llm plugins upgrade``: install newer versions of plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution
from typing import Any

import rich_click as click

from fllm.errors import PluginError, UnknownName
from fllm.plugins.discovery import normalize_name
from fllm_api.cli.options import CONTEXT_SETTINGS
from fllm_api.cli.plugin_lock.distribution_files import direct_url
from fllm_api.cli.plugins.packages.change import printable
from fllm_api.cli.plugins.packages.environment import distribution_of_plugin, third_party_distributions
from fllm_api.cli.plugins.packages.index import Listed, find_distribution, read_indexes
from fllm_api.cli.plugins.packages.installation import Installation
from fllm_api.cli.plugins.packages.options import INSTALL_OPTIONS
from fllm_api.cli.plugins.packages.targets import InstallTarget


@click.command("upgrade", params=[*INSTALL_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "all_plugins", is_flag=True, help="Upgrade all third-party plugins.")
@click.pass_context
def upgrade(
    ctx: click.RichContext,
    /,
    names: Sequence[str],
    all_plugins: bool,
    index: Sequence[str],
    **options: Any,
) -> None:
    """Upgrade plugins, or distributions with plugins, with the same checks as `plugins install`."""
    if bool(names) == all_plugins:
        raise click.UsageError("name the plugins to upgrade, or use --all")
    found = list(_all() if all_plugins else map(_named, names))
    if not found:
        click.echo("there is no third-party plugin to upgrade")
        return
    listed = read_indexes(index)
    targets = [_target(each.metadata["Name"], listed) for each in found]
    action = f"plugins upgrade {' '.join(names) or '--all'}"
    Installation(ctx, action, targets, options, upgrade=True).run()


def _named(name: str) -> Distribution:
    found = distribution_of_plugin(name)
    if found is None:
        raise UnknownName(f"no third-party plugin or distribution with plugins is named {name!r}")
    if (url := direct_url(found)) is not None:
        raise PluginError(
            f"{name} was installed from {url.url or 'a path or URL'}: an index may have another distribution "
            f"with its name; use `furiosa-llm plugins install` with the new path or URL"
        )
    return found


def _all() -> Iterator[Distribution]:
    for each in third_party_distributions().values():
        if (url := direct_url(each)) is None:
            yield each
        else:
            name = each.metadata["Name"]
            click.echo(printable(f"{name} stays: it was installed from {url.url}"), err=True)


def _target(name: str, listed: Sequence[Listed]) -> InstallTarget:
    return InstallTarget(name, normalize_name(name), find_distribution(name, listed))
