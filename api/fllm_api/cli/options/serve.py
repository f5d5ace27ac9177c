"""All parameters of ``furiosa-llm serve``, and the settings of commands that use them."""

from __future__ import annotations

from typing import Any

import rich_click as click

from fllm_api.cli.options.chat import CHAT_OPTIONS
from fllm_api.cli.options.engine import ENGINE_OPTIONS, NETWORK_OPTIONS
from fllm_api.cli.options.http import HTTP_OPTIONS
from fllm_api.cli.options.model import LORA_OPTIONS, MODEL, MODEL_OPTIONS, SEVERAL_MODELS_OPTIONS
from fllm_api.cli.options.observability import OBSERVABILITY_OPTIONS
from fllm_api.cli.options.plugin import CONFIG, LOCKED_PLUGINS, NO_PAGE, PLUGIN_OPTIONS, RELOAD

CONTEXT_SETTINGS: dict[str, Any] = {
    "auto_envvar_prefix": "FURIOSA_LLM",
    "show_default": True,
    "rich_help_config": {
        "options_table_column_types": ["opt_all", "help"],
        "options_table_help_sections": ["help", "metavar", "default"],
    },
}
"""Context settings of commands that use these options."""
SERVE_PARAMS: list[click.Parameter] = [
    MODEL,
    *MODEL_OPTIONS,
    *SEVERAL_MODELS_OPTIONS,
    *LORA_OPTIONS,
    *ENGINE_OPTIONS,
    *NETWORK_OPTIONS,
    *CHAT_OPTIONS,
    *HTTP_OPTIONS,
    *OBSERVABILITY_OPTIONS,
    CONFIG,
    *PLUGIN_OPTIONS,
    LOCKED_PLUGINS,
    NO_PAGE,
    RELOAD,
]
"""All parameters of ``furiosa-llm serve``."""
