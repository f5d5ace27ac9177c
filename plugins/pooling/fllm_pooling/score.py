"""`POST /score` and `POST /v1/score`, in vLLM's format."""

from __future__ import annotations

import time
import uuid

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm import USES_ENGINE, RequestError, Serving
from fllm_pooling.protocol import MAX_INPUTS, Score, ScoreList, ScoreRequest
from fllm_pooling.scores import TextsToScore, score_pairs


@post(
    ["/score", "/v1/score"],
    status_code=200,
    opt=dict(USES_ENGINE),
    tags=["Pooling"],
    summary="Score pairs of texts",
)
async def score(
    data: JSONBody[ScoreRequest],
    server: NamedDependency[Serving],
) -> ScoreList:
    """Return the similarity or relevance of each pair."""
    scores, usage = await score_pairs(data, _texts(data), server)
    return ScoreList(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=server.served_model_name,
        data=[Score(index=index, score=each) for index, each in enumerate(scores)],
        usage=usage,
    )


def _texts(body: ScoreRequest) -> TextsToScore:
    """Return the texts. Raise `RequestError` unless the fields of exactly one form are given."""
    forms = {
        ("text_1", "text_2"): (body.text_1, body.text_2),
        ("queries", "documents"): (body.queries, body.documents),
    }
    given = [(names, texts) for names, texts in forms.items() if texts != (None, None)]
    if len(given) != 1 or None in given[0][1]:
        raise RequestError(
            "send `text_1` and `text_2`, or `queries` and `documents`",
            param=given[0][0][0] if given else "text_1",
        )
    [(names, both)] = given
    first, second = ([each] if isinstance(each, str) else each or [] for each in both)
    for name, texts in zip(names, (first, second), strict=True):
        if len(texts) > MAX_INPUTS:
            raise RequestError(f"`{name}` has {len(texts)} texts; the maximum is {MAX_INPUTS}", param=name)
    return TextsToScore(first=first, second=second, params=names)
