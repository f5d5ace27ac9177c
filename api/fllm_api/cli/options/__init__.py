"""The options of ``furiosa-llm serve``. Each also reads ``FURIOSA_LLM_<OPTION>`` and ``--config``.

An option with the name of a field of a configuration Struct sets that field.
"""

from fllm_api.cli.options.chat import CHAT_OPTIONS
from fllm_api.cli.options.engine import DEFAULT_GRAMMAR, ENGINE_OPTIONS, NO_GRAMMAR
from fllm_api.cli.options.model import LORA_OPTIONS, MODEL_OPTIONS
from fllm_api.cli.options.plugin import PLUGIN_COMMAND_OPTIONS, PLUGIN_OPTION, PLUGIN_OPTIONS, PLUGINS_CONFIG
from fllm_api.cli.options.serve import CONTEXT_SETTINGS, SERVE_PARAMS
from fllm_api.cli.options.values import SECONDS

__all__ = [
    "CHAT_OPTIONS",
    "CONTEXT_SETTINGS",
    "DEFAULT_GRAMMAR",
    "ENGINE_OPTIONS",
    "LORA_OPTIONS",
    "MODEL_OPTIONS",
    "NO_GRAMMAR",
    "PLUGINS_CONFIG",
    "PLUGIN_COMMAND_OPTIONS",
    "PLUGIN_OPTION",
    "PLUGIN_OPTIONS",
    "SECONDS",
    "SERVE_PARAMS",
]
