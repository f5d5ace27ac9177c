"""Entry point of ``furiosa-llm``: runs the command line and sets the exit status."""

from __future__ import annotations

import sys
from typing import NoReturn

import rich_click as click
from click.core import ParameterSource

from fllm.errors import ConfigErrors, FllmError, UserError, exhausted_resource
from fllm.extras import missing_extra
from fllm_api.cli.commands import root_command
from fllm_api.cli.standard_streams import open_standard_streams

PROGRAM = "furiosa-llm"


def main() -> NoReturn:
    """Run the command line and exit: 0 on success, 2 for a user error, 1 for any other error.

    An error is one line on stderr.
    """
    if sys.platform == "win32":
        _fail("Windows is not supported: use WSL 2 or a container (docs/install.md)", status=2)
    open_standard_streams()
    try:
        status = root_command().main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message() + _value_source(error), status=2)
    except FllmError as error:
        messages = error.messages if isinstance(error, ConfigErrors) else (error.message,)
        _fail(*messages, status=2 if isinstance(error, UserError) else 1)
    except click.Abort:
        sys.exit(130)
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if reason := missing_extra(error):
            _fail(reason, status=2)
        if (reason := exhausted_resource(error)) is None:
            raise
        _fail(reason, status=1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(*messages: str, status: int) -> NoReturn:
    for message in messages:
        click.echo(f"{PROGRAM}: error: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _value_source(error: click.ClickException) -> str:
    """Return where an invalid value comes from, if it is not from the command line."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    source = error.ctx.get_parameter_source(error.param.name or "")
    if source is ParameterSource.ENVIRONMENT:
        return " (from the environment)"
    if source is ParameterSource.DEFAULT_MAP:
        return " (from the --config file)"
    return ""
