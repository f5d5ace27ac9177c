"""``furiosa-llm plugins``: for those who look at plugins, and for those who write them."""

from fllm_api.cli.plugins.group import plugins

__all__ = ["plugins"]
