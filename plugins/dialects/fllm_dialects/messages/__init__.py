"""Anthropic's Messages API, which Claude Code and the SDKs of Anthropic speak."""
