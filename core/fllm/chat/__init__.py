"""Chat templates: render a conversation into the text of a prompt."""

from fllm.chat.compiled_template import ContentFormat
from fllm.chat.image_prompt import count_image_parts, insert_images, render_with_images
from fllm.chat.message_escaping import ControlTokens, control_tokens
from fllm.chat.request_templates import RequestTemplate, RequestTemplates, TemplateSettings
from fllm.chat.template import ChatTemplate
from fllm.chat.tool_prompt import CallFormat

__all__ = [
    "CallFormat",
    "ChatTemplate",
    "ContentFormat",
    "ControlTokens",
    "RequestTemplate",
    "RequestTemplates",
    "TemplateSettings",
    "control_tokens",
    "count_image_parts",
    "insert_images",
    "render_with_images",
]
