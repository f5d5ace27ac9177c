"""Content blocks of a request as the parts of a chat message."""

from __future__ import annotations

from collections.abc import Sequence

from fllm import ContentPart, ImageUrl, RequestError
from fllm_dialects.messages.protocol import (
    Base64Source,
    ContentBlock,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    PlainText,
    ResultBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ToolReferenceBlock,
    UrlSource,
)

Part = tuple[str, ContentPart]
"""A part of a chat message, and the path in the request of what it was made of."""


def parts_of(content: str | Sequence[ContentBlock | ResultBlock | PlainText], path: str) -> list[Part]:
    """Return the parts of a content, without empty texts. Raise `RequestError` for what is not supported."""
    if isinstance(content, str):
        return text_parts(content, path)
    return [part for i, block in enumerate(content) for part in block_parts(block, f"{path}[{i}]")]


def block_parts(block: ContentBlock | ResultBlock | PlainText, path: str) -> list[Part]:
    """Return the parts that a block stands for. Raise `RequestError` for what is not supported."""
    match block:
        case TextBlock() | PlainText():
            return text_parts(block.text, path)
        case ImageBlock():
            return [(path, ContentPart("image_url", image_url=ImageUrl(_image_url(block, path))))]
        case DocumentBlock():
            _check_citations(block, path)
            return _document(block, path)
        case SearchResultBlock():
            _check_citations(block, path)
            texts = [text.text for text in block.content]
            return text_parts("\n\n".join([f"{block.title}\n{block.source}", *texts]), path)
        case ToolReferenceBlock():
            return text_parts(block.tool_name, path)
        case _:
            raise AssertionError(f"the conversation has no parts of {type(block).__name__}")


def content_of(parts: Sequence[Part]) -> str | list[ContentPart]:
    """Return the content of a chat message: a text, unless there are several parts or images."""
    if not parts:
        return ""
    first = parts[0][1]
    return first.text if len(parts) == 1 and first.text is not None else [part for _, part in parts]


def marked_as_error(parts: Sequence[Part], path: str) -> list[Part]:
    """Return the parts of a failed tool's result, which say so in their first line."""
    text = parts[0][1].text if parts else None
    if text is None:
        return [*text_parts("Error", path), *parts]
    if "error" in text.partition("\n")[0].lower():
        return list(parts)
    return [*text_parts(f"Error: {text}", parts[0][0]), *parts[1:]]


def text_parts(text: str, path: str) -> list[Part]:
    """Return the part for a text, unless it is empty."""
    return [(path, ContentPart("text", text=text))] if text else []


def _image_url(block: ImageBlock, path: str) -> str:
    match block.source:
        case Base64Source(data=data, media_type=media_type):
            return f"data:{media_type};base64,{data}"
        case UrlSource(url=url):
            return url
        case FileSource():
            raise _unsupported("files", "send the image as base64", f"{path}.source")


def _document(block: DocumentBlock, path: str) -> list[Part]:
    heading = "\n".join(filter(None, (block.title, block.context)))
    match block.source:
        case TextSource(data=text):
            return text_parts("\n\n".join(filter(None, (heading, text))), path)
        case ContentSource(content=content):
            return [*text_parts(heading, path), *parts_of(content, f"{path}.source.content")]
        case _:
            raise _unsupported("documents other than text", "send the text of the document", f"{path}.source")


def _check_citations(block: DocumentBlock | SearchResultBlock, path: str) -> None:
    if block.citations is not None and block.citations.enabled:
        raise _unsupported("citations", "leave `citations` out", f"{path}.citations")


def _unsupported(what: str, instead: str, param: str) -> RequestError:
    return RequestError(
        f"`{param}`: {what} are not supported; {instead}", param=param, code="unsupported_parameter"
    )
