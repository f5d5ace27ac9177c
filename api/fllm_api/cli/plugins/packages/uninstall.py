"""``furiosa-llm plugins uninstall``: remove plugins."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import Distribution
from typing import Any

import rich_click as click

from fllm.errors import PluginError, UnknownName
from fllm.plugins.discovery import SERVER, installed, normalize_name
from fllm_api.cli.options import CONTEXT_SETTINGS
from fllm_api.cli.plugins.packages.change import Change, confirm, make, show, workplace
from fllm_api.cli.plugins.packages.environment import distribution_of_plugin
from fllm_api.cli.plugins.packages.forwarded_options import forwarded_options
from fllm_api.cli.plugins.packages.options import CHANGE_OPTIONS
from fllm_api.cli.plugins.packages.verification import LoadedPlugins, Verification


@click.command("uninstall", params=[*CHANGE_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_context
def uninstall(ctx: click.RichContext, /, names: Sequence[str], yes: bool, no_check: bool, **_: Any) -> None:
    """Remove the distributions of plugins. If another plugin then does not load, everything is as before.

    What they depend on stays.
    """
    found = {normalize_name(each.metadata["Name"]): each for each in map(_named, names)}
    removed = [each.metadata["Name"] for each in found.values()]
    verification = Verification(forwarded_options(ctx))
    with workplace() as place:
        here = place.environment.distributions()
        if outside := sorted(found.keys() - here.keys()):
            raise PluginError(
                f"{', '.join(outside)}: not in {place.environment.prefix}, and only that is changed"
            )
        change = Change(action=f"plugins uninstall {' '.join(names)}", removed=tuple(found))
        show(change, here)
        confirm(yes=yes)
        earlier = None if no_check else verification.loaded()

        def check() -> None:
            if earlier is not None:
                _check(verification, earlier, removed)

        make(place, change, lambda: place.installer.uninstall(list(found)), check)
    click.echo(f"removed {', '.join(removed)}")


def _check(verification: Verification, earlier: LoadedPlugins, removed: Sequence[str]) -> None:
    if problems := list(verification.loaded().problems(earlier, removed)):
        raise PluginError("; ".join(problems))


def _named(name: str) -> Distribution:
    if (found := distribution_of_plugin(name)) is not None:
        return found
    key = normalize_name(name)
    if key == SERVER or any(key in each.names for each in installed() if each.is_built_in):
        raise PluginError(f"{name} is built in: --disable-plugin {name} leaves it out")
    raise UnknownName(f"no third-party plugin or distribution with plugins is named {name!r}")
