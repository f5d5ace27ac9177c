"""Chat templates: render a conversation into the text of a prompt."""

from fllm.chat.compiled_template import ContentFormat
from fllm.chat.request_templates import RequestTemplate, RequestTemplates, TemplateSettings
from fllm.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "ContentFormat", "RequestTemplate", "RequestTemplates", "TemplateSettings"]
