"""The extras of the distribution, and the line that says which one is missing."""

from __future__ import annotations

import sys
import tomllib

import pytest
from support.paths import ROOT

from fllm.errors import ConfigError
from fllm.extras import EXTRAS, missing_extra, missing_modules, require_extra

MODULES = {"pillow": "PIL", "opentelemetry-sdk": "opentelemetry"}


def test_the_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = requirement.partition(">")[0]
            if not name.startswith("opentelemetry-exporter"):
                assert MODULES.get(name, name) in EXTRAS[extra]


def test_the_base_has_no_package_of_the_torch_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {each.partition(">")[0] for each in project["dependencies"]}
    assert not names & {
        "torch",
        "transformers",
        "numba",
        "numpy",
        "llguidance",
        "gguf",
        "safetensors",
        "pillow",
    }


def test_a_missing_module_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert missing_modules("ray") == ["ray"]
    with pytest.raises(ConfigError) as caught:
        require_extra("ray", "--placement ray needs ray")
    assert caught.value.message == "--placement ray needs ray: pip install 'furiosa-llm-server[ray]'"


def test_an_import_of_a_module_of_an_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as caught:
        import torch.nn  # noqa: F401
    assert missing_extra(caught.value) == "'torch' is not installed: pip install 'furiosa-llm-server[torch]'"
    assert missing_extra(ModuleNotFoundError("No module named 'acme'", name="acme")) is None
    assert missing_extra(ValueError("torch")) is None
