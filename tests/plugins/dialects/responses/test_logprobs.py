"""Log-probabilities of an output belong to its messages, whatever the outputs are divided into."""

from __future__ import annotations

import itertools

import pytest

from fllm import Event, Finished, Reasoning, Text, TokenLogprob, ToolArguments, ToolStart, Usage
from fllm.events import merge_events
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm_dialects.responses.encoder import ResponsesEncoder
from fllm_dialects.responses.logprobs import TextLogprobs
from fllm_dialects.responses.protocol.events import ResponseEvent, TextDelta, TextDone
from fllm_dialects.responses.protocol.items import OutputMessage
from fllm_dialects.responses.protocol.requests import TextOptions
from fllm_dialects.responses.protocol.responses import Response

END = Finished(reason="stop", usage=Usage())
VOCABULARY = (
    "<think>",
    "hm",
    "</think>",
    "</think>Hel",
    "\n\n",
    "Hel",
    "lo",
    " you",
    "<call>",
    "f",
    "{}",
    "</call>",
    "é"[0],
    "",
)
HEL = VOCABULARY.index("Hel")
Step = tuple[str, list[Event]]


class Vocabulary:
    """Knows the bytes of a few tokens."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token; the last one is half of a character."""
        return b"\xc3" if token_id == len(VOCABULARY) else VOCABULARY[token_id].encode()


ANSWER: list[Step] = [("Hel", [Text("Hel")]), ("lo", []), (" you", [Text("lo you")]), ("", [END])]
REASONED: list[Step] = [
    ("<think>", []),
    ("hm", [Reasoning("hm")]),
    ("</think>", []),
    ("\n\n", []),
    *ANSWER,
]
REPEATED: list[Step] = [
    ("<think>", []),
    *(step for text in ("Hel", "lo", " you") for step in [(text, [Reasoning(text)])] * 2),
    *REASONED[2:],
]
JOINED: list[Step] = [("<think>", []), ("hm", [Reasoning("hm")]), ("</think>Hel", [Text("Hel")]), *ANSWER[1:]]
CALLED: list[Step] = [
    *REASONED[:-1],
    ("<call>", []),
    ("f", [ToolStart(0, "f", "call_1")]),
    ("{}", [ToolArguments(0, "{}")]),
    ("</call>", []),
    ("", [END]),
]


def outputs(steps: list[Step]) -> list[SequenceOutput]:
    """Return an output for each step."""
    result, offset = [], 0
    for text, events in steps:
        token_id = VOCABULARY.index(text)
        token = OutputToken(token_id, offset, TokenLogprob(token_id, -1.0, ((HEL, -2.0),)))
        result.append(SequenceOutput(index=0, events=events, tokens=[token]))
        offset += len(text)
    return result


def merged(parts: list[SequenceOutput]) -> SequenceOutput:
    """Return the outputs as one, as for a response that is not streamed."""
    return SequenceOutput(
        index=0,
        events=merge_events(event for part in parts for event in part.events),
        tokens=[token for part in parts for token in part.tokens],
    )


def new_encoder() -> ResponsesEncoder:
    """Return an encoder with log-probabilities."""
    response = Response(
        id="resp_1", created_at=1, status="in_progress", model="m", temperature=1, top_p=1, text=TextOptions()
    )
    return ResponsesEncoder(response, {}, logprobs=TextLogprobs(Vocabulary()))  # type: ignore[arg-type]


def tokens_of_message(response: Response) -> list[str]:
    """Return the tokens with log-probabilities."""
    [message] = [item for item in response.output if isinstance(item, OutputMessage)]
    return [entry.token for entry in message.content[0].logprobs]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (ANSWER, ["Hel", "lo", " you", ""]),
        (REASONED, ["Hel", "lo", " you", ""]),
        (CALLED, ["Hel", "lo", " you"]),
        (REPEATED, ["Hel", "lo", " you", ""]),
        (JOINED, ["</think>Hel", "lo", " you", ""]),
    ],
    ids=["text", "reasoning", "call", "a text that the reasoning has", "a tag and a text in one token"],
)
def test_a_message_has_those_of_its_own_tokens(steps: list[Step], expected: list[str]) -> None:
    parts = outputs(steps)
    for count in range(2 ** (len(parts) - 1)):
        cuts = [i + 1 for i in range(len(parts) - 1) if count >> i & 1]
        groups = [parts[a:b] for a, b in itertools.pairwise([0, *cuts, len(parts)])]
        encoder = new_encoder()
        chunks = [chunk for group in groups for chunk in encoder.feed(merged(group))]
        chunks += encoder.finish()
        assert tokens_of_message(encoder.fold(chunks)) == expected
        [done] = [chunk for chunk in chunks if isinstance(chunk, TextDone)]
        assert [entry.token for entry in done.logprobs] == expected
        deltas = [entry.token for c in chunks if isinstance(c, TextDelta) for entry in c.logprobs]
        assert deltas == expected[: len(deltas)]
        assert deltas[:3] == expected[:3]


def test_conversion_in_pieces_gives_the_same() -> None:
    encoder, whole = new_encoder(), merged(outputs(REASONED))
    assert encoder.logprob_tokens(whole) == len(REASONED)
    for _ in encoder.convert_logprobs(whole):
        pass
    encoder.feed(whole)
    [last] = encoder.finish()
    assert isinstance(last, ResponseEvent)
    assert tokens_of_message(last.response) == ["Hel", "lo", " you", ""]


def test_each_token_has_its_bytes_and_its_alternatives() -> None:
    logprobs = TextLogprobs(Vocabulary())  # type: ignore[arg-type]
    half = len(VOCABULARY)
    token = OutputToken(half, 0, TokenLogprob(half, float("-inf"), ((HEL, -0.5),)))
    logprobs.add(SequenceOutput(index=0, events=[], tokens=[token, OutputToken(HEL, 0)]))
    [entry] = logprobs.take("x")
    assert (entry.token, entry.logprob, entry.bytes) == ("bytes:\\xc3", -9999.0, [0xC3])
    assert [(top.token, top.logprob, top.bytes) for top in entry.top_logprobs] == [
        ("Hel", -0.5, list(b"Hel"))
    ]
