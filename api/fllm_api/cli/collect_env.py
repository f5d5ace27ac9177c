"""``furiosa-llm collect-env``: print the environment for a bug report."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import rich_click as click

from fllm.config import OPTION_VARIABLE
from fllm_api.build_info import DISTRIBUTION, build
from fllm_api.cli.commands import installed_plugins
from fllm_api.cli.version import installed_dependencies

_SECRET = re.compile(r"key|token=|secret|passw|://[^/]*@", re.IGNORECASE)
"""Matches a variable that may hold a secret, such as `FURIOSA_LLM_API_KEY`, or a URL with a password."""


_FEATURES = frozenset(
    ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16", "sve")
)
"""Instructions for which there are kernels, by their names in ``/proc/cpuinfo``."""


@click.command("collect-env")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def collect_env(as_json: bool) -> None:
    """Print system, devices, packages and plugins for a bug report. Secrets are hidden."""
    sections = {
        "Machine": dict(_machine()),
        "Devices": dict(_devices()),
        "Packages": dict(_packages()),
        "Plugins": dict(_plugins()),
        "Environment": dict(_variables()),
    }
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(sections)).decode())
        return
    for title, section in sections.items():
        click.echo(f"{title}")
        for name, value in (section or {"none": "nothing is set"}).items():
            click.echo(f"  {name}: {value}")


def _machine() -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    yield "cpu", _from_proc("cpuinfo", "model name") or platform.processor() or "unknown"
    flags = (_from_proc("cpuinfo", "flags") or _from_proc("cpuinfo", "Features") or "").split()
    yield "instructions", " ".join(sorted(_FEATURES.intersection(flags))) or "unknown"
    yield "cores", str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())
    yield "memory", f"{_gibibytes('MemTotal')}, {_gibibytes('MemAvailable')} available"
    yield "python", f"{platform.python_version()} ({sys.executable})"


def _gibibytes(key: str) -> str:
    """Return a size in ``/proc/meminfo``, which has KiB."""
    size = (_from_proc("meminfo", key) or "").removesuffix(" kB")
    return f"{int(size) / 1024**2:.1f} GiB" if size.isdecimal() else "unknown"


def _from_proc(file: str, key: str) -> str | None:
    try:
        lines = Path("/proc", file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _devices() -> Iterator[tuple[str, str]]:
    devices = [*_gpus(), *_npus()]
    yield from devices or [("none", "CPU only")]


def _gpus() -> Iterator[tuple[str, str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield "nvidia-smi", str(error)
    else:
        yield from ((f"cuda:{index}", line) for index, line in enumerate(output.splitlines()))


def _npus() -> Iterator[tuple[str, str]]:
    for path in sorted(Path("/dev").glob("rngd/npu[0-9]*mgmt")):
        yield path.name.removesuffix("mgmt"), str(path)


def _packages() -> Iterator[tuple[str, str]]:
    yield DISTRIBUTION, metadata.version(DISTRIBUTION)
    yield "git hash", build().git_hash
    yield from installed_dependencies()


def _plugins() -> Iterator[tuple[str, str]]:
    for report in installed_plugins().reports:
        left_out = "not allowed" if report.not_allowed else "disabled"
        state = report.error or (left_out if report.disabled else "ok")
        yield report.name, f"{report.distribution} {report.version}: {state}"


def _variables() -> Iterator[tuple[str, str]]:
    for name, value in sorted(os.environ.items()):
        if name.startswith(("FURIOSA_LLM_", "FLLM_", "CUDA_VISIBLE", "HF_HOME", "HF_HUB", "OMP_NUM")):
            is_secret = name.startswith(OPTION_VARIABLE) or _SECRET.search(f"{name}={value}")
            yield name, "(hidden)" if is_secret else value
