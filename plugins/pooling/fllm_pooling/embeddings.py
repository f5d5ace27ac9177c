"""`POST /v1/embeddings`."""

from __future__ import annotations

import time
import uuid
from base64 import b64encode
from collections.abc import Iterator

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response import Stream

from fllm import USES_ENGINE, PoolingCard, PoolingInput, PoolingOutput, RequestError, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm_pooling.protocol import EmbeddingList, EmbeddingRequest
from fllm_pooling.tokens import encode_inputs, new_encoder, require_pooling, require_task
from fllm_pooling.vectors import rows, usage

WHOLE_BYTES = 256 * 1024
"""Size of the vectors up to which a response is sent at once. More is encoded while it is sent."""


@post(
    "/v1/embeddings",
    status_code=200,
    opt=dict(USES_ENGINE),
    tags=["OpenAI"],
    summary="Create embeddings",
    responses={200: ResponseSpec(EmbeddingList, description="The response", generate_examples=False)},
)
async def embeddings(
    data: JSONBody[EmbeddingRequest],
    server: NamedDependency[Serving],
) -> Response[bytes] | Stream:
    """Return an embedding of each input."""
    pooling = require_pooling(server)
    require_task(pooling, "embed")
    check_dimensions(data, pooling)
    inputs = await server.prepare(_encode(data, server))
    output = await server.pool(
        inputs,
        dimensions=data.dimensions,
        activation=data.use_activation if data.normalize is None else data.normalize,
        priority=data.priority or 0,
    )
    body = _body(server.served_model_name, data.encoding_format, inputs, output)
    if len(output.values) > WHOLE_BYTES:
        return Stream(body, media_type="application/json")
    return Response(b"".join(body), media_type="application/json")


def check_dimensions(body: EmbeddingRequest, pooling: PoolingCard) -> None:
    """Raise `RequestError` if the model's embeddings can't be cut to the requested size."""
    size, matryoshka = body.dimensions, pooling.matryoshka
    if size is None or size == pooling.size:
        return
    if not matryoshka:
        problem = "this model is not known to be trained for shorter embeddings (Matryoshka)"
    elif size > pooling.size:
        problem = f"the embeddings of this model have {pooling.size} values"
    elif isinstance(matryoshka, tuple) and size not in matryoshka:
        problem = f"the sizes that this model is trained for are {', '.join(map(str, matryoshka))}"
    else:
        return
    raise RequestError(f"`dimensions` {size} can't be served: {problem}", param="dimensions")


def _encode(body: EmbeddingRequest, server: Serving) -> Pieces[list[PoolingInput]]:
    encoder = new_encoder(body, server, prompt_name=body.prompt_name)
    return (yield from encode_inputs(body.input, encoder, special=body.add_special_tokens is not False))


def _body(
    model: str, encoding_format: str | None, inputs: list[PoolingInput], output: PoolingOutput
) -> Iterator[bytes]:
    """Return the pieces of an `EmbeddingList`. Raise `BackendError` before the first one."""
    vectors = rows(output)
    head = {"id": f"embd-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": model}
    end = b'],"usage":' + msgspec.json.encode(usage(inputs)) + b"}"

    def pieces() -> Iterator[bytes]:
        yield msgspec.json.encode(head)[:-1] + b',"data":['
        for index, vector in enumerate(vectors):
            value = b64encode(_bytes(output, index)).decode() if encoding_format == "base64" else list(vector)
            row = {"object": "embedding", "index": index, "embedding": value}
            yield (b"," if index else b"") + msgspec.json.encode(row)
        yield end

    return pieces()


def _bytes(output: PoolingOutput, index: int) -> bytes:
    width = 4 * output.size
    return output.values[index * width : (index + 1) * width]
