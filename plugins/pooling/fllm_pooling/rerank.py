"""`POST /rerank`, `/v1/rerank` and `/v2/rerank`, in Jina's and Cohere's format."""

from __future__ import annotations

import uuid

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET

from fllm import USES_ENGINE, Serving
from fllm_pooling.protocol import Document, RankedDocument, Ranking, RerankRequest
from fllm_pooling.scores import TextsToScore, score_pairs
from fllm_pooling.tokens import require_pooling


@post(
    ["/rerank", "/v1/rerank", "/v2/rerank"],
    status_code=200,
    opt=dict(USES_ENGINE),
    tags=["Pooling"],
    summary="Rank documents",
)
async def rerank(
    data: JSONBody[RerankRequest],
    server: NamedDependency[Serving],
) -> Ranking:
    """Return the documents by their relevance for a query, the best first."""
    prompts = require_pooling(server).prompts
    documents = [each if isinstance(each, str) else each.text for each in data.documents]
    texts = TextsToScore(
        first=[data.query],
        second=documents,
        params=("query", "documents"),
        max_second=data.max_tokens_per_doc,
        prompts=(prompts.get("query", ""), prompts.get("document", "")),
    )
    scores, usage = await score_pairs(data, texts, server)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: data.top_n or None]
    return Ranking(
        id=f"rerank-{uuid.uuid4().hex}",
        model=server.served_model_name,
        usage=usage,
        results=[
            RankedDocument(
                index=i,
                document=UNSET if data.return_documents is False else Document(documents[i]),
                relevance_score=scores[i],
            )
            for i in best
        ],
    )
