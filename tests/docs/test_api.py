"""docs/api.md documents every request field."""

from __future__ import annotations

import msgspec
import pytest
from support.paths import DOCS

from fllm.requests.chat import ChatRequest
from fllm.requests.completions import CompletionRequest

PAGE = (DOCS / "api.md").read_text()


@pytest.mark.parametrize("request_type", [ChatRequest, CompletionRequest])
def test_every_field_is_on_the_page(request_type: type[msgspec.Struct]) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(request_type)}
    assert {field for field in fields if f"`{field}`" not in PAGE and f"`{field}:" not in PAGE} == set()
