"""Measure how good JSON under a schema is, compared with a free answer to the same prompt.

::

    furiosa-llm serve --served-model-name m --port 8000
    python benchmarks/structured_quality.py --model m now=http://localhost:8000 before=http://localhost:8001

Each prompt is answered at temperature 0, freely and under a schema, by each server. The first server scores
all answers: the log-likelihood of the tokens that its tokenizer gives the answer, after the prompt. Texts in
the answers (the strings that are values) are also scored alone, because keys and white space are easy to
guess. All figures are means; higher log-likelihoods are better.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import msgspec
from msgspec import Struct

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 1000}


def obj(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that requires these properties."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TASKS: dict[str, dict[str, Any]] = {
    "Tell me a joke about {}.": obj(setup=TEXT, punchline=TEXT),
    "Explain {} to a child.": obj(title=TEXT, explanation=TEXT),
    "Write a short poem about {}.": obj(title=TEXT, lines=TEXTS),
    "Ask a quiz question about {}.": obj(question=TEXT, options=TEXTS, answer=TEXT),
    "Give three facts about {}.": obj(topic=TEXT, facts=TEXTS),
    "Invent a company that sells something for {}.": obj(name=TEXT, slogan=TEXT, employees=WHOLE),
    "What are pros and cons of {}?": obj(pros=TEXTS, cons=TEXTS, verdict={"enum": ["good", "bad", "mixed"]}),
    "Rate how much people like {}.": obj(score=WHOLE, reason=TEXT, popular={"type": "boolean"}),
    "Describe a person who loves {}.": obj(
        name=TEXT, age=WHOLE, home=obj(city=TEXT, country=TEXT), hobbies=TEXTS
    ),
    "Plan a day about {}.": obj(
        plan={"type": "array", "items": obj(time=TEXT, activity=TEXT), "minItems": 2, "maxItems": 3}
    ),
    "Write the title and summary of a book about {}.": obj(
        title=TEXT, author=TEXT, summary=TEXT, price={"type": "number", "minimum": 0, "maximum": 99}
    ),
    "Write a message to a friend about {}.": obj(subject=TEXT, body=TEXT, urgent={"type": "boolean"}),
}
TOPICS = ("cats", "the sea", "music", "winter", "bread", "bicycles")
VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"?(?!\s*:)')
"""A string that is not a key; the last one of an answer that is cut off may have no end."""


class Answer(Struct):
    """One answer, and how probable the model finds it."""

    seconds: float
    tokens: int
    valid: bool
    """Whether it is a whole JSON object."""
    score: float
    """Mean log-likelihood of a token."""
    text_score: float | None
    """The same for the tokens of its texts."""
    total: float
    """Log-likelihood of the whole answer."""


class Server:
    """Answers and scores prompts through `/v1/completions`."""

    def __init__(self, url: str, options: argparse.Namespace) -> None:
        self._client = httpx.Client(base_url=url, timeout=600)
        self._options = options

    def complete(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Return the only choice, with the usage."""
        body = {"model": self._options.model, "prompt": prompt, "temperature": 0, **fields}
        response = self._client.post("/v1/completions", json=body)
        response.raise_for_status()
        found = response.json()
        return {**found["choices"][0], **found["usage"]}

    def score(self, prompt: str, answer: str) -> list[tuple[int, float]]:
        """Return the place in the answer and the log-likelihood of each of its tokens."""
        logprobs = self.complete(prompt + answer, max_tokens=0, echo=True, logprobs=0)["logprobs"]
        places = zip(logprobs["text_offset"], logprobs["token_logprobs"], strict=True)
        return [(at - len(prompt), value) for at, value in places if at >= len(prompt)]


def main() -> None:
    """Measure and print a line for each kind of answer of each server."""
    options = parse_arguments()
    servers = {
        name: Server(url, options) for name, _, url in (each.partition("=") for each in options.servers)
    }
    judge = next(iter(servers.values()))
    answers: dict[tuple[str, str], list[Answer]] = {}
    for question, schema in prompts(options.limit):
        prompt = options.format.replace("\\n", "\n").format(question)
        for (name, server), kind in product(servers.items(), ("free", "schema")):
            fields = {"guided_json": schema} if kind == "schema" else {}
            found = answer(server, judge, prompt, options.max_tokens, fields)
            answers.setdefault((name, kind), []).append(found)
    print(f"{'':16} {'valid':>6} {'tokens':>7} {'seconds':>8} {'nats/token':>11} {'in texts':>9} {'nats':>8}")
    for (name, kind), group in answers.items():
        print(f"{name + ', ' + kind:16} {row(group)}")


def prompts(limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the prompts with their schemas."""
    pairs = list(product(TOPICS, TASKS.items()))
    for topic, (task, schema) in pairs[:limit]:
        yield f"{task.format(topic)} Answer as JSON with the keys {', '.join(schema['properties'])}.", schema


def answer(server: Server, judge: Server, prompt: str, max_tokens: int, fields: dict[str, Any]) -> Answer:
    """Return one answer with its scores."""
    start = time.perf_counter()
    choice = server.complete(prompt, max_tokens=max_tokens, **fields)
    seconds = time.perf_counter() - start
    text = choice["text"]
    scores = judge.score(prompt, text) if text else []
    spans = [match.span(1) for match in VALUE.finditer(text)]
    inside = [value for at, value in scores if any(first <= at < last for first, last in spans)]
    values = [value for _, value in scores]
    return Answer(
        seconds=seconds,
        tokens=choice["completion_tokens"],
        valid=choice["finish_reason"] == "stop" and is_object(text),
        score=statistics.fmean(values or [0.0]),
        text_score=statistics.fmean(inside) if inside else None,
        total=sum(values),
    )


def is_object(text: str) -> bool:
    """Return whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def row(answers: list[Answer]) -> str:
    """Format the means of a group of answers."""
    columns = msgspec.to_builtins(answers)

    def mean(name: str) -> float:
        return statistics.fmean(each[name] for each in columns if each[name] is not None)

    texts = f"{mean('text_score'):9.3f}" if any(each.text_score is not None for each in answers) else 9 * " "
    return (
        f"{mean('valid'):6.0%} {mean('tokens'):7.1f} {mean('seconds'):8.2f} {mean('score'):11.3f} "
        f"{texts} {mean('total'):8.1f}"
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="+", metavar="NAME=URL")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=120)
    parser.add_argument("--limit", type=int, default=len(TOPICS) * len(TASKS), help="number of prompts")
    parser.add_argument("--format", default=CHATML, help="text around a prompt; the default is ChatML's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
