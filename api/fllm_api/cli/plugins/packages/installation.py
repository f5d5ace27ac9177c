"""The steps of ``plugins install`` and ``plugins upgrade``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich_click as click

from fllm.errors import ConfigError, PluginError
from fllm.plugins.discovery import GROUP, Candidate, installed, normalize_name
from fllm.plugins.selection import PluginSelection
from fllm_api.build_info import DISTRIBUTION
from fllm_api.cli.loaded_plugins import plugin_config
from fllm_api.cli.plugins.packages.change import Change, Workplace, confirm, make, printable, show, workplace
from fllm_api.cli.plugins.packages.environment import server_needs, third_party_distributions
from fllm_api.cli.plugins.packages.forwarded_options import forwarded_options
from fllm_api.cli.plugins.packages.installers import Wanted
from fllm_api.cli.plugins.packages.staging import StagedDistribution, read_stage, refuse_overwriting
from fllm_api.cli.plugins.packages.targets import InstallTarget, requirement_name
from fllm_api.cli.plugins.packages.verification import LoadedPlugins, Verification

CONTRACTS = "hypothesis"
"""What the contract tests need."""


class Installation:
    """Installs what was requested, if it keeps all other plugins working."""

    def __init__(
        self,
        ctx: click.Context,
        action: str,
        targets: Sequence[InstallTarget],
        options: Mapping[str, Any],
        *,
        upgrade: bool = False,
    ) -> None:
        self._action = action
        self._targets = targets
        self._yes: bool = options["yes"]
        self._check: bool = not options["no_check"]
        self._arguments = _split(options["pip_args"])
        self._upgrade = upgrade
        self._selection = PluginSelection(plugin_config(ctx))
        self._verification = Verification(forwarded_options(ctx))

    def run(self) -> None:
        """Plan, show and ask; then install, check, and undo it if a check fails."""
        with workplace() as place:
            wanted = self._wanted(place)
            click.echo(f"Resolving with {place.installer.name} ...", err=True)
            requirements = place.installer.plan(wanted, place.scratch)
            if not requirements:
                self._require_installed_plugins()
                click.echo("nothing to change: what was requested is installed")
                return
            staged = self._stage(place, wanted, requirements)
            change = Change(action=self._action, installed=tuple(staged))
            show(change, place.environment.distributions())
            self._require_plugins(staged, requirements)
            self._require_allowed(staged)
            refuse_taken_names(staged)
            refuse_overwriting(staged, place.environment)
            confirm(yes=self._yes)
            tools = self._tools(place, wanted) if self._check else None
            earlier = self._verification.loaded() if self._check else None
            pinned = self._pinned(wanted, staged, requirements)

            def check() -> None:
                if earlier is not None:
                    self._verify(staged, earlier, tools)

            make(place, change, lambda: place.installer.install(pinned), check)
        self._report(staged)

    def _wanted(self, place: Workplace) -> Wanted:
        constraints = place.scratch / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in server_needs().items()))
        return Wanted(
            specifications=tuple(each.specification for each in self._targets),
            constraints=constraints,
            arguments=self._arguments,
            upgrade=self._upgrade,
        )

    def _pinned(
        self, wanted: Wanted, staged: Sequence[StagedDistribution], requirements: Sequence[str]
    ) -> Wanted:
        """Add the versions that were shown to the constraints."""
        indexed = {requirement_name(each) for each in requirements if " @ " not in each}
        with wanted.constraints.open("a") as file:
            file.writelines(f"{each.name}=={each.version}\n" for each in staged if each.key in indexed)
        return wanted

    def _stage(
        self, place: Workplace, wanted: Wanted, requirements: Sequence[str]
    ) -> list[StagedDistribution]:
        """Fetch the distributions, and return them. Raise `PluginError` if one may not be installed."""
        needed = server_needs()
        for each in requirements:
            if (name := requirement_name(each)) in needed:
                raise PluginError(
                    f"{place.installer.name} would install {each}, which this server runs with: "
                    f"{needed[name]} stays; install it yourself if you want another"
                )
        click.echo(f"Fetching {len(requirements)} ...", err=True)
        directory = place.scratch / "stage"
        place.installer.stage(requirements, wanted, directory)
        staged = read_stage(directory, place.environment)
        self._check_digests(place, wanted, requirements, {each.key: each.version for each in staged})
        return staged

    def _check_digests(
        self, place: Workplace, wanted: Wanted, requirements: Sequence[str], versions: Mapping[str, str]
    ) -> None:
        """Fetch again, with hashes, what an index has digests of. Raise `PluginError` if they differ."""
        known = {
            normalize_name(each.listed.plugin.distribution): each.listed.plugin.digests
            for each in self._targets
            if each.listed is not None
        }
        lines = []
        for each in requirements:
            name = requirement_name(each)
            if files := known.get(name, {}).get(versions.get(name, "")):
                lines.append(" ".join([each, *(f"--hash={digest}" for digest in sorted(files.values()))]))
        if lines:
            file = place.scratch / "hashes.txt"
            file.write_text("\n".join(lines))
            place.installer.check_hashes(file, wanted, place.scratch / "hashed")

    def _require_plugins(self, staged: Sequence[StagedDistribution], requirements: Sequence[str]) -> None:
        """Raise `PluginError` if one of the requested distributions registers no plugin."""
        names = {each.name for each in self._targets if each.name is not None}
        direct = {requirement_name(each) for each in requirements if " @ " in each}
        without = [each.name for each in staged if not each.plugins and each.key in names]
        paths = sum(each.name is None for each in self._targets)
        if sum(bool(each.plugins) for each in staged if each.key in direct) < min(paths, len(direct)):
            without += [each.name for each in staged if not each.plugins and each.key in direct]
        _refuse_without_plugins(without)

    def _require_installed_plugins(self) -> None:
        installed = third_party_distributions()
        names = [each.name for each in self._targets if each.name is not None]
        _refuse_without_plugins([name for name in names if name not in installed])

    def _require_allowed(self, staged: Sequence[StagedDistribution]) -> None:
        """Raise `PluginError` if a closed list does not name a plugin."""
        for each in staged:
            for plugin in each.plugins:
                candidate = Candidate(plugin, each.name, each.version, "", lambda: None)
                if not self._selection.allows(candidate):
                    raise PluginError(f"--allow-plugin does not name the plugin {plugin} of {each.name}")

    def _tools(self, place: Workplace, wanted: Wanted) -> Path | None:
        """Return a directory with what the contracts need; ``None`` if the environment has it."""
        if find_spec(CONTRACTS) is not None:
            return None
        directory = place.scratch / "tools"
        try:
            place.installer.stage([CONTRACTS], wanted, directory, deps=True)
        except PluginError as error:
            raise ConfigError(
                f"the contract tests need {CONTRACTS}: install '{DISTRIBUTION}[testing]', or skip them with "
                f"--no-check ({error.message})"
            ) from error
        return directory

    def _verify(
        self, staged: Sequence[StagedDistribution], earlier: LoadedPlugins, tools: Path | None
    ) -> None:
        """Raise `PluginError` if a contract fails, or if another plugin no longer works."""
        click.echo("Checking ...", err=True)
        problems = list(self._verification.loaded().problems(earlier, ()))
        for each in staged:
            if each.plugins and not problems:
                passed, failures = self._verification.failures(each.name, tools)
                click.echo(printable(f"  {each.name}: {passed} checks passed, {len(failures)} failed"))
                for line in failures:
                    click.echo(printable(f"    {line}"))
                if failures:
                    problems.append(f"{each.name} {each.version} fails {len(failures)} of its checks")
        if problems:
            raise PluginError("; ".join(problems))

    def _report(self, staged: Sequence[StagedDistribution]) -> None:
        loaded = self._verification.loaded()
        for each in staged:
            for name, offers in loaded.offers(each.name):
                click.echo(printable(f"installed {each.name} {each.version}: plugin {name}: {offers}"))
        click.echo("A server that runs has the change after a restart.")


def refuse_taken_names(staged: Sequence[StagedDistribution]) -> None:
    """Raise `PluginError` if the name of a plugin can't be printed, or is that of another one that stays."""
    replaced = {each.key for each in staged}
    others = [each for each in installed() if normalize_name(each.distribution) not in replaced]
    taken = {name: each.distribution for each in others for name in each.names}
    for each in staged:
        for plugin in each.plugins:
            if not plugin.isprintable():
                raise PluginError(printable(f"{each.name}: {plugin!r} is not a name of a plugin"))
            if (owner := taken.get(normalize_name(plugin))) is not None:
                raise PluginError(f"{each.name}: {owner} has a plugin {plugin!r} already")
            taken[normalize_name(plugin)] = each.name


def _refuse_without_plugins(names: Sequence[str]) -> None:
    if names:
        raise PluginError(
            f"{', '.join(names)}: this registers no plugin (an entry point of the group {GROUP!r}), and this "
            "command installs only plugins"
        )


def _split(text: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise ConfigError(f"--pip-args {text!r}: {error}") from error
