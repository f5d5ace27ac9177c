"""The journal: what a change has done, completely or in part, is undone exactly."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fllm.errors import ConfigError, PluginError
from fllm_api.cli.plugins.packages.change import Change, Workplace, make, workplace
from fllm_api.cli.plugins.packages.change_lock import LOCK, change_lock, journal_directory
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.installers import Pip
from fllm_api.cli.plugins.packages.journal import Journal
from fllm_api.cli.plugins.packages.recovery import is_interrupted, recover
from fllm_api.cli.plugins.packages.staging import StagedDistribution, StagedFile


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Return text and time of each file, and each directory."""
    return {
        str(path.relative_to(folder)): ("", 0)
        if path.is_dir()
        else (path.read_text(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment with acme 1.0 and another file."""
    site = tmp_path / "env" / "site-packages"
    write(site / "acme.py", "one")
    write(site / "__pycache__" / "acme.cpython-311.pyc", "compiled one")
    write(site / "old.py", "only in one")
    write(site / "acme-1.0.dist-info" / "METADATA", "Name: acme\nVersion: 1.0\n")
    write(site / "acme-1.0.dist-info" / "RECORD", "acme.py,,\nold.py,,\nacme-1.0.dist-info/METADATA,,\n")
    write(site / "other.py", "of another distribution")
    write(site / "~left", "by an earlier pip")
    (tmp_path / "journal").mkdir()
    return Environment(tmp_path / "env", (site,))


@pytest.fixture
def journal(environment: Environment, tmp_path: Path) -> Journal:
    """Return the journal of a change from acme 1.0 to 2.0, which also brings a new package."""
    site = environment.sites[0]
    journal = Journal(tmp_path / "journal", environment)
    old = environment.files(environment.distributions()["acme"])
    names = ("acme.py", "other.py", "new/part/x.py", "new/__init__.py", "acme-2.0.dist-info/METADATA")
    journal.begin("plugins upgrade acme", old, [site / name for name in names])
    return journal


def remove_old(site: Path) -> None:
    for name in ("acme.py", "old.py", "__pycache__/acme.cpython-311.pyc", "acme-1.0.dist-info/METADATA"):
        (site / name).unlink()


def residue(site: Path) -> None:
    (site / "acme-1.0.dist-info").rename(site / "~cme-1.0.dist-info")


def install_new(site: Path) -> None:
    write(site / "acme.py", "two")
    write(site / "__pycache__" / "acme.cpython-311.pyc", "compiled two")
    write(site / "other.py", "overwritten")
    write(site / "new" / "__init__.py", "")
    write(site / "new" / "__pycache__" / "__init__.cpython-311.pyc", "")
    write(site / "new" / "part" / "x.py", "")
    write(site / "new" / "__pycache__" / "__init__.cpython-311.pyc.140646754391152", "half")
    write(site / "acme-2.0.dist-info" / "METADATA", "Name: acme\nVersion: 2.0\n")
    write(site / "acme-2.0.dist-info" / "INSTALLER", "pip")


STEPS: tuple[Callable[[Path], None], ...] = (remove_old, residue, install_new)


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_a_change_is_undone_whatever_was_done_of_it(
    steps: int, environment: Environment, journal: Journal
) -> None:
    site = environment.sites[0]
    before = contents(site)
    for step in STEPS[:steps]:
        step(site)
    assert journal.is_open
    assert journal.undo() == "plugins upgrade acme"
    assert contents(site) == before
    assert not journal.is_open


def test_an_undo_that_was_interrupted_is_completed(environment: Environment, journal: Journal) -> None:
    site = environment.sites[0]
    before = contents(site)
    for step in STEPS:
        step(site)
    (site / "new" / "__init__.py").unlink()
    (site / "old.py").write_text("only in one")
    write(site / "old.py", "half")
    journal.undo()
    assert contents(site) == before


def test_what_others_have_installed_since_stays_and_is_named(
    environment: Environment, journal: Journal
) -> None:
    site = environment.sites[0]
    install_new(site)
    write(site / "later-1.0.dist-info" / "METADATA", "Name: later\nVersion: 1.0\n")
    write(site / "new" / "later.py", "kept")
    assert journal.undo() == "plugins upgrade acme (others have changed since: later)"
    assert (site / "new" / "later.py").read_text() == "kept"
    assert (site / "acme.py").read_text() == "one"


def test_a_command_of_plugins_undoes_an_interrupted_change(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Environment, "current", lambda: environment)
    site = environment.sites[0]
    before = contents(site)
    with change_lock(environment) as (journal, _):
        journal.begin("plugins install new", [], [site / "new.py"])
        write(site / "new.py", "")
        assert is_interrupted()
        recover()
        assert "changes this environment" in capsys.readouterr().err
    recover()
    assert "warning: plugins install new was interrupted, and was undone" in capsys.readouterr().err
    assert contents(site) == before
    assert not is_interrupted()


def test_an_accepted_change_stays(environment: Environment, journal: Journal, tmp_path: Path) -> None:
    install_new(environment.sites[0])
    journal.accept()
    assert not journal.is_open
    assert (environment.sites[0] / "acme.py").read_text() == "two"
    assert list((tmp_path / "journal").iterdir()) == []


def test_paths_outside_of_the_environment_are_never_touched(environment: Environment, tmp_path: Path) -> None:
    site = environment.sites[0]
    write(tmp_path / "outside.py", "mine")
    write(site / "acme-1.0.dist-info" / "RECORD", f"../../outside.py,,\n{tmp_path}/outside.py,,\nacme.py,,\n")
    files = set(environment.files(environment.distributions()["acme"]))
    assert site / "acme.py" in files
    assert tmp_path / "outside.py" not in files


def test_only_one_command_changes_an_environment(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with change_lock(environment):
        directory = journal_directory(environment)
        assert directory is not None
        assert directory.stat().st_mode & 0o777 == 0o700
        busy = pytest.raises(ConfigError, match=rf"\(process {os.getpid()}\) changes this environment")
        with busy, change_lock(environment):
            pass
    with (directory / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_undoes_the_change(number: signal.Signals, environment: Environment, tmp_path: Path) -> None:
    site = environment.sites[0]
    before = contents(site)
    handler = signal.getsignal(number)
    file = StagedFile(tmp_path / "stage" / "__init__.py", (site / "new" / "__init__.py",))
    staged = StagedDistribution("acme", "2.0", 1, ("acme",), (file,))
    place = Workplace(environment, Pip(), Journal(tmp_path / "journal", environment), tmp_path)

    def run() -> None:
        write(site / "new" / "__init__.py", "")
        os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        make(place, Change(action="plugins install acme", installed=(staged,)), run, lambda: None)
    assert contents(site) == before
    assert signal.getsignal(number) is handler


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(PluginError, match=r"^the environment can't be changed: .*No space left on device$"),
        workplace(),
    ):
        raise full
    with pytest.raises(BrokenPipeError), workplace():
        raise BrokenPipeError
