"""The option of commands that print a report."""

import rich_click as click

JSON = click.RichOption(["--json", "as_json"], is_flag=True, help="Print JSON.")
