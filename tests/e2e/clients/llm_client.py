"""The command ``llm``: a stream, an object, and a tool that it calls itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from orders import CAPITAL, QUESTION, Order

SERVER = """\
- model_id: local
  model_name: any-name
  api_base: {}
  supports_schema: true
  supports_tools: true
"""
TOOL = "def capital(country: str) -> str: return 'Paris'"

home = Path("llm").absolute()
home.mkdir()
(home / "extra-openai-models.yaml").write_text(SERVER.format(sys.argv[1]))


def ask(*arguments: str) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "llm", "--model", "local", "--no-log", "--option", "temperature", "0"]
    environment = {**os.environ, "LLM_USER_PATH": str(home)}
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, env=environment)
    return done.stdout


print(
    json.dumps(
        {
            "stream": ask(CAPITAL),
            "object": json.loads(ask("--schema", json.dumps(Order.model_json_schema()), QUESTION)),
            "with a tool": ask("--functions", TOOL, CAPITAL),
        }
    )
)
