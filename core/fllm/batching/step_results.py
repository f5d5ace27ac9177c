"""What the result of a row means for its sequence."""

from __future__ import annotations

from msgspec.structs import replace

from fllm.batching.runner import Row, Sampled
from fllm.batching.sequence import Sequence
from fllm.errors import BackendError
from fllm.values import EngineOutput, FinishReason, TokenLogprob


def advance(sequence: Sequence, row: Row, result: Sampled, max_model_len: int) -> EngineOutput | BackendError:
    """Append what was sampled, if anything, up to a stop token, and say what became of the sequence."""
    guide = sequence.guide
    tokens: list[int] = []
    stop_token = None
    for token in _sampled(row, result):
        tokens.append(token)
        stops = _stops(sequence, token)
        sequence.token_ids.append(token)
        if stops:
            stop_token = token
            break
        if guide is not None and guide.error is None:
            guide.accept_token(token)
    if guide is not None and guide.error is not None:
        return guide.error
    step = EngineOutput(
        token_ids=tokens,
        logprobs=_logprobs(result, len(tokens)),
        finish_reason=_finish(sequence, max_model_len) if stop_token is None else "stop",
        stop_token=stop_token,
    )
    return step if sequence.started else _opening(sequence, step)


def _sampled(row: Row, result: Sampled) -> list[int]:
    if not row.sample:
        return []
    if result.token_id is None:
        raise BackendError("the runner sampled no token where it was asked to")
    end = row.start + row.count
    drafts = row.token_ids[end - row.drafts : end]
    return [*drafts[: result.accepted], result.token_id]


def _logprobs(result: Sampled, tokens: int) -> list[TokenLogprob] | None:
    return None if result.logprob is None else [*result.accepted_logprobs, result.logprob][:tokens]


def _stops(sequence: Sequence, token: int) -> bool:
    guide = sequence.guide
    return token in sequence.stop_ids and (sequence.may_stop if guide is None else guide.may_end)


def _finish(sequence: Sequence, max_model_len: int) -> FinishReason | None:
    if sequence.guide is not None and sequence.guide.exhausted:
        return "stop"
    full = sequence.length >= max_model_len or sequence.generated >= sequence.sampling.max_tokens
    return "length" if full else None


def _opening(sequence: Sequence, step: EngineOutput) -> EngineOutput:
    """The first step says more."""
    owed = sequence.owes_prompt_logprobs
    sequence.started = True
    return replace(
        step,
        cached_tokens=sequence.cached_tokens,
        queue_time=sequence.queue_time,
        prompt_logprobs=[None, *sequence.prompt_logprobs] if owed else None,
    )
