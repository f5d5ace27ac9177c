from __future__ import annotations

import pytest

from fllm.model import locate
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.download import fetch_tokenizer_files


@pytest.fixture(scope="session")
def embedded_tokenizer() -> Tokenizer:
    """Return the tokenizer of the embedded model."""
    return Tokenizer.load(fetch_tokenizer_files(locate().location, None, lambda progress: None).directory)
