"""The files that docs/your-first-device.md shows and names exist in a new project."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner
from support.paths import ROOT

from fllm_api.cli.plugins.new import new

PAGE = (ROOT / "docs" / "your-first-device.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_code_block_of_the_page_names_a_file() -> None:
    assert len(BLOCKS) == PAGE.count("```python\n")
    assert {"runner.py", "cache.py", "llama.py", "sampler.py", "backend.py", "options.py", "plugin.py"} <= {
        file for file, _ in BLOCKS
    }


def test_the_template_of_a_device_has_the_files_of_the_page(tmp_path: Path) -> None:
    [line] = re.findall(r"^furiosa-llm plugins new (.+)$", PAGE, re.MULTILINE)
    done = CliRunner().invoke(new, [*line.split(), "--directory", str(tmp_path)])
    assert done.exit_code == 0, done.output
    package = tmp_path / "src" / "acme_npu"
    assert {"plugin.py", "options.py", "backend.py", "runner.py", "sampler.py"} <= {
        file.name for file in package.iterdir()
    }
    assert "  furiosa-llm serve DIRECTORY --devices acme_npu" in done.output
    assert "`furiosa-llm serve DIRECTORY --devices acme_npu`" in PAGE
