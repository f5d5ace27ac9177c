"""Apply the result of a row to its sequence."""

from __future__ import annotations

from msgspec.structs import replace

from fllm.batching.runner import Row, Sampled
from fllm.batching.sequence import Sequence
from fllm.errors import BackendError, FllmError
from fllm.values import EngineOutput, FinishReason, TokenLogprob


def append_tokens(sequence: Sequence, row: Row, result: Sampled, max_model_len: int) -> EngineOutput:
    """Append the sampled tokens, up to a stop token, and return the output of the step.

    It begins with the tokens that the grammar has forced before. The grammar starts to accept the sampled
    token. Raise `BackendError` if the runner did not return a token that the row requires.
    """
    grammar = sequence.grammar
    allowed = _allowed(sequence, row) if sequence.sampling.allowed_counts else None
    tokens = sequence.token_ids[sequence.length - sequence.forced :]
    logprobs, sequence.forced_logprobs = sequence.forced_logprobs, []
    sequence.forced = 0
    stop_token = None
    for token in _sampled_tokens(row, result):
        tokens.append(token)
        stops = _stops(sequence, token)
        sequence.token_ids.append(token)
        if stops:
            stop_token = token
            break
        if sequence.token_filter is not None:
            sequence.token_filter.accept(token)
        if grammar is not None and grammar.error is None:
            grammar.accept_token(token, **sequence.limits_left(max_model_len))
    return EngineOutput(
        token_ids=tokens,
        logprobs=(logprobs + _logprobs(result))[: len(tokens)] or None,
        finish_reason=None if stop_token is None else "stop",
        stop_token=stop_token,
        allowed=allowed,
    )


def append_forced(sequence: Sequence) -> None:
    """Append the tokens that the grammar forces after those that it has accepted."""
    if sequence.grammar is not None:
        tokens = sequence.grammar.take_forced()
        sequence.token_ids += tokens
        sequence.forced += len(tokens)
        if sequence.token_filter is not None:
            for token in tokens:
                sequence.token_filter.accept(token)


def finish_output(sequence: Sequence, output: EngineOutput, max_model_len: int) -> EngineOutput | FllmError:
    """Return an output with its finish reason, once the sequence's grammar has accepted its token.

    If forced tokens end the text, they need no computation, except for their log-probabilities. Return the
    error instead if the grammar failed, or if no token could come next.
    """
    if sequence.token_filter is not None and sequence.token_filter.error is not None:
        return sequence.token_filter.error
    if sequence.grammar is not None and sequence.grammar.error is not None:
        return sequence.grammar.error
    append_forced(sequence)
    reason = output.finish_reason or finish_reason(sequence, max_model_len)
    if reason is not None and not sequence.needs_forced_logprobs:
        forced = sequence.token_ids[sequence.length - sequence.forced :]
        allowed = output.allowed
        if forced and sequence.sampling.allowed_counts:
            allowed = [*output.allowed_of_tokens, *[1] * len(forced)]
        output = replace(
            output, token_ids=[*output.token_ids, *forced], finish_reason=reason, allowed=allowed
        )
    return output if sequence.started else _first_output(sequence, output)


def _allowed(sequence: Sequence, row: Row) -> list[int] | None:
    """Return the number of tokens that each token of a step could have been; ``None`` if all were allowed.

    The forced ones come first. The mask is that with which the row was sampled: call this before the grammar
    continues. A sequence with a mask has no drafts.
    """
    if not sequence.restricted:
        return None
    sampled = [] if row.mask is None else [int.from_bytes(row.mask(), "little").bit_count()]
    return [1] * sequence.forced + sampled


def _sampled_tokens(row: Row, result: Sampled) -> list[int]:
    if not row.sample:
        return []
    if result.token_id is None:
        raise BackendError("the runner returned no token for a row with `sample=True`")
    end = row.start + row.count
    drafts = row.token_ids[end - row.drafts : end]
    return [*drafts[: result.accepted], result.token_id]


def _logprobs(result: Sampled) -> list[TokenLogprob]:
    return [] if result.logprob is None else [*result.accepted_logprobs, result.logprob]


def _stops(sequence: Sequence, token: int) -> bool:
    """Return whether the token ends the sequence, which does not contain it yet."""
    grammar = sequence.grammar
    return token in sequence.stop_ids and (sequence.has_min_tokens if grammar is None else grammar.may_stop)


def finish_reason(sequence: Sequence, max_model_len: int) -> FinishReason | None:
    """Return why the sequence ends here, unless a stop token ends it."""
    if sequence.grammar is not None and sequence.grammar.exhausted:
        return "stop"
    return "length" if _is_full(sequence, max_model_len) else None


def _is_full(sequence: Sequence, max_model_len: int) -> bool:
    return sequence.length >= max_model_len or sequence.generated >= sequence.sampling.max_tokens


def _first_output(sequence: Sequence, output: EngineOutput) -> EngineOutput:
    """Add the fields that only the first output of a sequence has."""
    with_prompt_logprobs = sequence.needs_prompt_logprobs
    sequence.started = True
    return replace(
        output,
        cached_tokens=sequence.cached_tokens,
        queue_time=sequence.queue_time,
        prompt_logprobs=[None, *sequence.prompt_logprobs] if with_prompt_logprobs else None,
    )
