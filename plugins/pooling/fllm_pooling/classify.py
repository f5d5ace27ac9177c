"""`POST /classify` and `POST /v1/classify`, in vLLM's format."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm import USES_ENGINE, PoolingCard, PoolingInput, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm_pooling.protocol import Classification, ClassificationList, ClassifyRequest
from fllm_pooling.tokens import encode_inputs, new_encoder, require_pooling, require_task
from fllm_pooling.vectors import rows, usage


@post(
    ["/classify", "/v1/classify"],
    status_code=200,
    opt=dict(USES_ENGINE),
    tags=["Pooling"],
    summary="Classify texts",
)
async def classify(
    data: JSONBody[ClassifyRequest],
    server: NamedDependency[Serving],
) -> ClassificationList:
    """Return the probabilities of the classes of each input."""
    pooling = require_pooling(server)
    require_task(pooling, "classify")
    inputs = await server.prepare(_encode(data, server))
    output = await server.pool(inputs, activation=data.use_activation, priority=data.priority or 0)
    return ClassificationList(
        id=f"classify-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=server.served_model_name,
        data=[_classification(index, vector, pooling) for index, vector in enumerate(rows(output))],
        usage=usage(inputs),
    )


def _encode(body: ClassifyRequest, server: Serving) -> Pieces[list[PoolingInput]]:
    encoder = new_encoder(body, server)
    return (yield from encode_inputs(body.input, encoder, special=body.add_special_tokens is not False))


def _classification(index: int, vector: Sequence[float], pooling: PoolingCard) -> Classification:
    best = max(range(len(vector)), key=vector.__getitem__)
    return Classification(
        index=index, label=pooling.labels[best], probs=list(vector), num_classes=len(vector)
    )
