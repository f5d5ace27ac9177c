"""docs/parsers.md tells of every parser that we have, and its example is a real one."""

import re
from pathlib import Path

from fllm import ParserContext, ParserEntry, Reasoning, Text
from fllm.config import PluginConfig
from fllm.plugins import load_plugins
from fllm.registry import Registry
from fllm.testing import parse, plugins_with
from fllm_parsers import plugin

PAGE = (Path(__file__).parents[3] / "docs" / "parsers.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| .* \| (yes|) \|$", re.MULTILINE)
OURS = plugins_with(plugin, installed=False)


def told(heading: str) -> dict[str, bool]:
    """The names under a heading, and whether ``auto`` may choose them."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    return {name: bool(auto) for name, auto in ROW.findall(section)}


def offered(registry: Registry) -> dict[str, bool]:
    entries = [each.entry for each in registry]
    return {entry.name: isinstance(entry, ParserEntry) and bool(entry.signs) for entry in entries}


def test_every_parser_is_in_its_table() -> None:
    assert told("Tool calls") == offered(OURS.tool_parsers)
    assert told("Reasoning") == offered(OURS.reasoning_parsers)


def test_the_example_is_a_plugin_that_works(tmp_path: Path) -> None:
    code = re.search(r"^```python\n(# acme_thoughts.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert code
    file = tmp_path / "acme_thoughts.py"
    file.write_text(code[1])
    parser = load_plugins(PluginConfig(paths=(str(file),))).reasoning_parsers.load("acme")
    made = parse(parser(ParserContext()), ["<thought>\na\n</thought>\n\nb"])
    assert made == [Reasoning("a"), Text("\n\nb")]
