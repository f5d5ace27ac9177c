"""Chat templates: a conversation in, the text of a prompt out."""

from fllm.chat.foreign import ForeignTemplate, ForeignTemplates, Setting
from fllm.chat.source import ContentFormat
from fllm.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "ContentFormat", "ForeignTemplate", "ForeignTemplates", "Setting"]
