"""Ollama's client: an object, streams of ``chat`` and ``generate``, the models, and typed decisions."""

from __future__ import annotations

import json
import sys

from ollama import Client
from orders import CAPITAL, QUESTION, Order

client = Client(host=sys.argv[1].removesuffix("/v1"))
options = {"temperature": 0, "num_predict": 200}
structured = client.chat(
    "m", messages=[{"role": "user", "content": QUESTION}], format=Order.model_json_schema(), options=options
)
chat = client.chat("m", messages=[{"role": "user", "content": CAPITAL}], stream=True, options=options)
questions = {
    "asks": {"type": "noul", "instructions": "Is it a question?"},
    "topic": {
        "type": "choice",
        "instructions": "What is it about?",
        "criteria": {"geography": "Places", "cooking": "Food"},
    },
    "length": {"type": "score", "instructions": "How long is it?", "criteria": ["short", "medium", "long"]},
}
found = {
    "object": json.loads(structured.message.content),
    "pieces": [part.message.content for part in chat],
    "generated": [part.response for part in client.generate("m", CAPITAL, stream=True, options=options)],
    "models": [model.model for model in client.list().models],
    "answers": client.systemone("m", CAPITAL, questions).model_dump()["answers"],
}
print(json.dumps(found))
