"""``furiosa-llm plugins``: list, show, check and create plugins."""

from fllm_api.cli.plugins.group import plugins

__all__ = ["plugins"]
