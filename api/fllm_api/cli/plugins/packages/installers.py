"""The installer of an environment: pip, uv, or pipx with one of them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path

from msgspec import Struct

from fllm.engine_host.parent_death import ending_with
from fllm.errors import ConfigError, PluginError
from fllm.plugins.discovery import SERVER
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.installer_output import explain, parse_pip_report, parse_uv_plan

MANAGED = "EXTERNALLY-MANAGED"
"""File in the directory of the standard library of a Python that its system manages (PEP 668)."""
PYTHON = (sys.executable, "-P")
"""The interpreter of the environment; the working directory is not searched for modules."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What to install."""

    specifications: tuple[str, ...]
    """Requirements, paths and URLs."""
    constraints: Path
    """File with the versions that stay."""
    arguments: tuple[str, ...] = ()
    """Other arguments for the installer, such as ``--find-links``."""
    upgrade: bool = False
    """Whether to replace what is installed; the specifications are then names."""


class Installer(ABC):
    """Plans and makes changes of an environment. Each method raises `PluginError` if the program fails.

    The program is killed if this process dies; the journal then has what it did not complete.
    """

    name: str
    _lock: int | None = None

    def hold(self, lock: int) -> None:
        """Keep a descriptor open as long as the program runs, also if this process ends before it."""
        self._lock = lock

    @abstractmethod
    def plan(self, wanted: Wanted, scratch: Path) -> list[str]:
        """Return a requirement for each distribution that would be installed. Nothing is changed."""

    @abstractmethod
    def stage(
        self, requirements: Sequence[str], wanted: Wanted, directory: Path, *, deps: bool = False
    ) -> None:
        """Install into a directory outside of the environment, by default without dependencies."""

    @abstractmethod
    def check_hashes(self, file: Path, wanted: Wanted, directory: Path) -> None:
        """Fetch the requirements of a file with hashes into a directory."""

    @abstractmethod
    def install(self, wanted: Wanted) -> None:
        """Install into the environment."""

    @abstractmethod
    def uninstall(self, names: Sequence[str]) -> None:
        """Remove distributions from the environment."""

    def options(self, wanted: Wanted) -> list[str]:
        """Return the arguments that say which versions may be installed, and from where."""
        upgrade = ["--upgrade"] if wanted.upgrade else []
        return [*upgrade, "--constraint", str(wanted.constraints), *wanted.arguments]

    def call(self, *command: str | Path, **environment: str) -> str:
        """Run a program that must succeed; return its output."""
        done = subprocess.run(
            ending_with(os.getpid(), list(map(str, command))),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **environment},
            pass_fds=() if self._lock is None else (self._lock,),
        )
        if done.returncode:
            raise PluginError(f"{self.name}: {explain(done.stdout, done.stderr)}")
        return done.stdout + done.stderr


class Pip(Installer):
    """pip, which is in the environment."""

    name = "pip"
    _pip = (*PYTHON, "-m", "pip")

    def plan(self, wanted: Wanted, scratch: Path) -> list[str]:
        """Return the requirements of pip's report."""
        report = scratch / "report.json"
        options = ("--dry-run", "--report", str(report), "--no-color", *self.options(wanted))
        self.call(*self._pip, "install", *options, "--", *wanted.specifications)
        return parse_pip_report(report.read_bytes())

    def stage(
        self, requirements: Sequence[str], wanted: Wanted, directory: Path, *, deps: bool = False
    ) -> None:
        """Install with ``--target``."""
        options = (
            "--target",
            directory,
            "--no-compile",
            *(() if deps else ("--no-deps",)),
            *wanted.arguments,
        )
        self.call(*self._pip, "install", *options, "--", *requirements, PIP_USER="0")

    def check_hashes(self, file: Path, wanted: Wanted, directory: Path) -> None:
        """Install with ``--require-hashes``."""
        options = ("--require-hashes", "--no-deps", "--no-compile", "--target", str(directory))
        self.call(*self._pip, "install", *options, "--requirement", file, *wanted.arguments, PIP_USER="0")

    def install(self, wanted: Wanted) -> None:
        """Install into the environment."""
        self.call(*self._pip, "install", "--no-color", *self.options(wanted), "--", *wanted.specifications)

    def uninstall(self, names: Sequence[str]) -> None:
        """Remove distributions."""
        self.call(*self._pip, "uninstall", "--yes", "--no-color", "--", *names)


class Uv(Installer):
    """uv, for an environment without pip."""

    name = "uv"

    def __init__(self, program: str) -> None:
        self._program = program

    def options(self, wanted: Wanted) -> list[str]:
        """Return the arguments; ``--upgrade`` would upgrade all dependencies, too."""
        names = [argument for name in wanted.specifications for argument in ("--upgrade-package", name)]
        upgrade = names if wanted.upgrade else []
        return [*upgrade, "--constraint", str(wanted.constraints), *wanted.arguments]

    def plan(self, wanted: Wanted, scratch: Path) -> list[str]:  # noqa: ARG002
        """Return the requirements that uv prints."""
        return parse_uv_plan(self._install("--dry-run", *self.options(wanted), "--", *wanted.specifications))

    def stage(
        self, requirements: Sequence[str], wanted: Wanted, directory: Path, *, deps: bool = False
    ) -> None:
        """Install with ``--target``."""
        options = ("--target", str(directory), *(() if deps else ("--no-deps",)), *wanted.arguments)
        self._install(*options, "--", *requirements)

    def check_hashes(self, file: Path, wanted: Wanted, directory: Path) -> None:
        """Install with ``--require-hashes``."""
        options = ("--require-hashes", "--no-deps", "--target", str(directory), *wanted.arguments)
        self._install(*options, "--requirement", str(file))

    def install(self, wanted: Wanted) -> None:
        """Install into the environment."""
        self._install(*self.options(wanted), "--", *wanted.specifications)

    def uninstall(self, names: Sequence[str]) -> None:
        """Remove distributions."""
        self.call(self._program, "pip", "uninstall", "--color", "never", "--python", sys.executable, *names)

    def _install(self, *arguments: str) -> str:
        options = ("--color", "never", "--no-progress", "--python", sys.executable)
        return self.call(self._program, "pip", "install", *options, *arguments)


class Pipx(Installer):
    """pipx, which keeps a list of what it injected. Its own installer plans and upgrades."""

    name = "pipx"

    def __init__(self, program: str, inner: Installer, environment: str) -> None:
        self._program = program
        self._inner = inner
        self._environment = environment

    def plan(self, wanted: Wanted, scratch: Path) -> list[str]:
        """Return the requirements that the inner installer reports."""
        return self._inner.plan(wanted, scratch)

    def stage(
        self, requirements: Sequence[str], wanted: Wanted, directory: Path, *, deps: bool = False
    ) -> None:
        """Install with the inner installer."""
        self._inner.stage(requirements, wanted, directory, deps=deps)

    def check_hashes(self, file: Path, wanted: Wanted, directory: Path) -> None:
        """Fetch with the inner installer."""
        self._inner.check_hashes(file, wanted, directory)

    def hold(self, lock: int) -> None:
        """Keep a descriptor open as long as one of the programs runs."""
        super().hold(lock)
        self._inner.hold(lock)

    def install(self, wanted: Wanted) -> None:
        """Inject the distributions. Those that are injected already are upgraded."""
        arguments = f"--pip-args={shlex.join(self._inner.options(wanted))}"
        force = ["--force"] if wanted.upgrade else []
        self.call(self._program, "inject", *force, arguments, self._environment, *wanted.specifications)

    def uninstall(self, names: Sequence[str]) -> None:
        """Remove distributions; what they depend on stays."""
        self.call(self._program, "uninject", "--leave-deps", self._environment, *names)


def find_installer(environment: Environment) -> Installer:
    """Return the installer of the environment. Raise `ConfigError` if none may be used."""
    in_venv = sys.prefix != sys.base_prefix
    if not in_venv and Path(get_path("stdlib"), MANAGED).is_file():
        raise ConfigError(
            f"the Python at {sys.prefix} is managed by its system (PEP 668), which keeps plugins out: "
            "install furiosa-llm-server into a virtual environment or with pipx, and its plugins with that"
        )
    if not all(os.access(site, os.W_OK) for site in environment.sites if site.exists()):
        raise ConfigError(f"{environment.sites[0]} can't be written by this user")
    inner = _inner_installer(environment)
    if not environment.pipx_metadata.is_file():
        return inner
    if (pipx := shutil.which("pipx")) is None:
        raise ConfigError(f"{environment.prefix} was made by pipx, and pipx is not in PATH")
    return Pipx(pipx, inner, environment.prefix.name)


def _inner_installer(environment: Environment) -> Installer:
    """Return pip if it is in the environment; else uv if that made it, or if no other pip is found.

    uv does not see distributions that ``PYTHONPATH`` or a ``.pth`` file adds, such as the server itself.
    """
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    here, has_pip = environment.distributions(), find_spec("pip") is not None
    fits_uv = environment.was_made_by_uv and SERVER in here and "pip" not in here
    if uv is not None and (fits_uv or not has_pip):
        return Uv(uv)
    if has_pip:
        return Pip()
    raise ConfigError(
        f"{sys.prefix} has neither pip nor uv: run {shlex.quote(sys.executable)} -m ensurepip, or install uv"
    )
