"""Types of values that several options have."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from fllm_api.cli.param_types import Integer, Number

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
POSITIVE = Integer(min=1)
SECONDS = Number(0, 86400)
