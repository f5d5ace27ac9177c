"""What may be installed: no file and no name of a distribution that stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.distributions import install, one_parser

from fllm.errors import PluginError
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.installation import refuse_taken_names
from fllm_api.cli.plugins.packages.staging import StagedDistribution, read_stage, refuse_overwriting


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment with one plugin."""
    site = tmp_path / "site-packages"
    install(site, "acme-parsers", {"acme_mod": one_parser("acme_mod", "acme")}, {"acme": "acme_mod"})
    return Environment(tmp_path, (site,))


def stage(environment: Environment, name: str, modules: dict[str, str]) -> list[StagedDistribution]:
    directory = environment.prefix / "stage"
    install(directory, name, modules, {"new": next(iter(modules))}, version="2.0")
    return read_stage(directory, environment)


def test_a_file_of_another_distribution_is_not_overwritten(environment: Environment) -> None:
    staged = stage(environment, "rival", {"rival": "", "acme_mod": "stolen = True"})
    with pytest.raises(
        PluginError, match=r"^rival would overwrite .*/acme_mod\.py, which acme-parsers 1\.0 has$"
    ):
        refuse_overwriting(staged, environment)


def test_a_file_may_be_replaced_by_a_newer_version_or_by_the_same_content(environment: Environment) -> None:
    refuse_overwriting(stage(environment, "acme-parsers", {"acme_mod": "newer = True"}), environment)
    same = stage(environment, "rival", {"rival": "", "acme_mod": one_parser("acme_mod", "acme")})
    refuse_overwriting(same, environment)


def test_a_file_that_no_distribution_has_may_be_replaced(environment: Environment) -> None:
    (environment.sites[0] / "rival.py").write_text("left = True")
    refuse_overwriting(stage(environment, "rival", {"rival": ""}), environment)


def staged_plugins(*plugins: str) -> list[StagedDistribution]:
    return [StagedDistribution(name="rival", version="1.0", size=0, plugins=plugins, files=())]


def test_a_plugin_may_not_take_the_name_of_another_one() -> None:
    refuse_taken_names(staged_plugins("rival", "second"))
    for name in ("page", "PAGE"):
        with pytest.raises(PluginError, match=f"^rival: furiosa-llm-server has a plugin '{name}' already$"):
            refuse_taken_names(staged_plugins(name))


def test_the_name_of_a_plugin_can_be_printed() -> None:
    with pytest.raises(PluginError, match=r"^rival: 'a\\x1bb' is not a name of a plugin$"):
        refuse_taken_names(staged_plugins("a\x1bb"))
