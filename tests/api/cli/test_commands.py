"""The top-level command group, with commands of plugins in files."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from fllm_api.cli.commands import root_command

GREET = """
import click
import fllm

@click.command()
@click.argument("who")
def greet(who):
    click.echo(f"Hello {who}")

@fllm.hookimpl
def fllm_commands():
    yield fllm.Entry("greet_me", f"{__name__}:greet", "Greet someone.")
"""


def test_a_command_in_a_file_is_listed_and_run(tmp_path: Path) -> None:
    file = tmp_path / "greeting_plugin.py"
    file.write_text(GREET)
    done = CliRunner().invoke(root_command(), ["--plugin", str(file), "greet_me", "you"])
    assert (done.exit_code, done.output) == (0, "Hello you\n")
    assert "Greet someone." in CliRunner().invoke(root_command(), ["--plugin", str(file), "--help"]).output
    assert CliRunner().invoke(root_command(), ["greet_me", "you"]).exit_code == 2
    assert CliRunner().invoke(root_command(), ["--plugin", str(tmp_path / "no.py"), "version"]).exit_code == 2
