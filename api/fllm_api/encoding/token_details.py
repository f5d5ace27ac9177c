"""Token ids and log-probabilities of the prompt in a response, in vLLM's format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from fllm.concurrency.turn_executor import Pieces, run_at_once
from fllm.pipeline.output_processor import SequenceOutput
from fllm.pipeline.pipeline import PipelineRequest
from fllm.requests.generation import GenerationRequest
from fllm.values import TokenLogprob
from fllm_api.encoding.logprobs import PIECE_TOKENS, TokenFormatter, finite, json_items, json_list
from fllm_api.protocol.token_details import PromptTokenLogprob


class TokenDetails:
    """Collects what a request asks for; a value that it does not ask for is `UNSET`."""

    def __init__(
        self,
        prompts: Sequence[list[int]],
        n: int,
        formatter: TokenFormatter,
        *,
        token_ids: bool = False,
        prompt_logprobs: int | None = None,
    ) -> None:
        self._prompts = prompts
        self._n = n
        self._formatter = formatter
        self.with_token_ids = token_ids
        """Whether the response has token ids."""
        self._top = prompt_logprobs
        self._token_ids: defaultdict[int, list[int]] = defaultdict(list)
        """Tokens of each choice that are in no chunk yet."""
        self._prompt_logprobs: dict[int, Any] = {}
        """Encoded log-probabilities of the prompt, by choice."""

    def prompt_tokens(self, output: SequenceOutput) -> int:
        """Return the number of prompt tokens whose log-probabilities `add` would encode."""
        return 0 if self._top is None else len(output.prompt_logprobs or ())

    def convert(self, output: SequenceOutput) -> Pieces[None]:
        """Encode the log-probabilities of the prompt in pieces, so that `add` takes little time after it."""
        if self._top is None or output.prompt_logprobs is None:
            return
        items: list[bytes] = []
        for start in range(0, len(output.prompt_logprobs), PIECE_TOKENS):
            part = output.prompt_logprobs[start : start + PIECE_TOKENS]
            items.append(json_items([self._entry(logprob) for logprob in part]))
            yield 0
        self._prompt_logprobs[output.index] = json_list(items)

    def add(self, output: SequenceOutput) -> None:
        """Add the tokens of an output."""
        if self.with_token_ids:
            self._token_ids[output.index] += [token.token_id for token in output.tokens]
        if output.prompt_logprobs is not None and output.index not in self._prompt_logprobs:
            run_at_once(self.convert(output))

    def take_token_ids(self, index: int) -> list[int] | UnsetType:
        """Return the tokens of a choice that are in no chunk yet."""
        return self._token_ids.pop(index, []) if self.with_token_ids else UNSET

    def prompt_token_ids(self, index: int) -> list[int] | UnsetType:
        """Return the prompt of a choice."""
        return self._prompts[index // self._n] if self.with_token_ids else UNSET

    def take_prompt_logprobs(self, index: int) -> Any:
        """Return the log-probabilities of the prompt of a choice, which are sent once."""
        return self._prompt_logprobs.pop(index, UNSET)

    def _entry(self, logprob: TokenLogprob | None) -> dict[int, PromptTokenLogprob] | None:
        """Return the token of the prompt and the most likely ones, each with its rank if that is known."""
        if logprob is None:
            return None
        ranked = enumerate(logprob.top[: self._top], start=1)
        tokens = {i: (value, rank) for rank, (i, value) in ranked}
        rank = tokens[logprob.token_id][1] if logprob.token_id in tokens else logprob.rank
        own = (logprob.logprob, rank)
        return {
            i: PromptTokenLogprob(finite(value), rank, self._formatter.format(i))
            for i, (value, rank) in {logprob.token_id: own, **tokens}.items()
        }


def token_details(
    body: GenerationRequest, request: PipelineRequest, formatter: TokenFormatter
) -> TokenDetails | None:
    """Return what collects the details of a response, or ``None`` if the request asks for none."""
    if not body.return_token_ids and body.prompt_logprobs is None:
        return None
    return TokenDetails(
        request.prompts,
        request.n,
        formatter,
        token_ids=bool(body.return_token_ids),
        prompt_logprobs=body.prompt_logprobs,
    )


def join_token_ids(parts: Sequence[list[int] | UnsetType]) -> list[int] | UnsetType:
    """Return the token ids of all chunks of a choice."""
    known = [part for part in parts if part is not UNSET]
    return [token_id for part in known for token_id in part] if known else UNSET
