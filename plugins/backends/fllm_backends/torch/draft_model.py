"""Drafts from a smaller model with the same vocabulary, which runs in the same engine.

It samples with the parameters, the seed and the position of the sequence, and so with the same random
numbers as the model: where their distributions are alike, so are their tokens (Daliri et al. 2024, arXiv
2408.07978).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from fllm import (
    BackendConfig,
    ConfigError,
    DraftedSequence,
    DrafterContext,
    DraftRequest,
    DraftResult,
    ModelCard,
    Progress,
    SamplingParams,
    UserError,
    drafter_options,
)
from fllm.batching import ModelRunner, Row
from fllm.batching.block_pool import BlockPool
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.download import fetch_tokenizer_files
from fllm_backends.drafters.options import DraftModelOptions
from fllm_backends.torch.hardware import default_device, kv_cache_budget, torch_device
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

METHOD = "draft_model"
"""Its name."""
BLOCK_SIZE = 16
CUDA_KV_PART = 8
"""The KV cache of the draft model takes this part of the free memory of a CUDA device."""
CHUNK_TOKENS = 256
"""Number of tokens of prompts that are computed per step, before there are drafts for them."""


class DraftState(Struct, eq=False):
    """What the draft model has computed of a sequence."""

    sampling: SamplingParams
    text: list[int] = []
    """Tokens and the drafts after them. The KV of the first ``computed`` are in the blocks."""
    certain: int = 0
    """Number of first tokens that were no drafts."""
    computed: int = 0
    block_table: list[int] = []

    def follow(self, token_ids: Sequence[int]) -> None:
        """Replace the text by the sequence's, and keep what is computed of equal first tokens."""
        kept = min(self.certain, self.computed)
        while kept < min(self.computed, len(token_ids)) and self.text[kept] == token_ids[kept]:
            kept += 1
        self.computed = min(kept, len(token_ids) - 1)
        self.text = [*token_ids]
        self.certain = len(token_ids)


class DraftModel:
    """Proposes the tokens that a draft model samples."""

    def __init__(self, context: DrafterContext) -> None:
        options = drafter_options(context.settings, DraftModelOptions)
        with _naming_the_option():
            self._runner, card, blocks = _load(options, context)
        self._vocab_size = min(context.vocab_size, card.runtime["vocab_size"])
        self._max_length = min(card.max_model_len, options.max_model_len or card.max_model_len)
        if card.long_context_start is not None:  # its KV change there
            self._max_length = min(self._max_length, card.long_context_start)
        self._pool = BlockPool(blocks, BLOCK_SIZE, enable_caching=False)
        self._states: dict[str, DraftState] = {}

    def start(self, sequence: DraftedSequence) -> None:
        """Create an empty state. The prompt is computed when drafts are asked for."""
        sampling = replace(sequence.sampling, logprobs=None, prompt_logprobs=None, logprob_token_ids=())
        self._states[sequence.id] = DraftState(sampling)

    def propose(self, batch: Sequence[DraftRequest]) -> Sequence[Sequence[int]]:
        """Return the tokens that the draft model samples, all sequences together."""
        drafting: list[DraftRequest] = []
        rows: list[Row] = []
        budget = CHUNK_TOKENS
        for each in batch:
            state = self._states[each.sequence.id]
            if not self._take(state, each):
                continue
            pending = len(state.text) - state.computed
            count = min(pending, budget) if pending > 1 else 1
            if not count:
                continue
            budget -= count
            if count == pending:
                drafting.append(each)
            rows.append(self._row(each.sequence, count, sample=count == pending))
        while rows:
            samples = (sampled.token_id for sampled in self._runner.execute(rows))
            tokens = [token for token in samples if token is not None]
            for each, token in zip(drafting, tokens, strict=True):
                self._states[each.sequence.id].text.append(token)
            drafting = [each for each in drafting if self._wants_more(each)]
            rows = [self._row(each.sequence, 1, sample=True) for each in drafting]
        return [self._drafts(each) for each in batch]

    def verified(self, results: Sequence[DraftResult]) -> None:
        """Do nothing: `propose` compares the drafts with the text."""

    def end(self, sequence: DraftedSequence) -> None:
        """Free the blocks of a sequence."""
        self._pool.free(self._states.pop(sequence.id).block_table)

    def close(self) -> None:
        """Release the draft model."""
        self._runner.close()

    def _take(self, state: DraftState, request: DraftRequest) -> bool:
        """Take over the text of a sequence. Return whether there is room to draft for it."""
        token_ids = request.sequence.token_ids
        state.follow(token_ids)
        length = len(token_ids) + request.max_tokens
        if length > self._max_length or max(token_ids[state.computed :]) >= self._vocab_size:
            return False
        missing = max(-(-length // BLOCK_SIZE) - len(state.block_table), 0)
        if not self._pool.can_allocate(missing):
            return False
        state.block_table += self._pool.allocate(missing)
        return True

    def _row(self, sequence: DraftedSequence, count: int, *, sample: bool) -> Row:
        """Return a row of the next tokens of a sequence, which are computed when it is executed."""
        state = self._states[sequence.id]
        start = state.computed
        state.computed += count
        return Row(
            token_ids=state.text,
            prompt_length=sequence.prompt_length,
            start=start,
            count=count,
            block_table=state.block_table,
            sampling=state.sampling,
            seed=sequence.seed,
            sample=sample,
        )

    def _wants_more(self, request: DraftRequest) -> bool:
        state = self._states[request.sequence.id]
        return len(state.text) - state.certain < request.max_tokens and state.text[-1] < self._vocab_size

    def _drafts(self, request: DraftRequest) -> list[int]:
        """Return the drafts of a sequence, up to one that the model does not have."""
        state = self._states[request.sequence.id]
        drafts = state.text[state.certain :]
        return drafts if not drafts or drafts[-1] < self._vocab_size else drafts[:-1]


def _load(options: DraftModelOptions, context: DrafterContext) -> tuple[ModelRunner, ModelCard, int]:
    """Load the draft model, and return its runner, its card and the number of its blocks."""
    target = context.config
    config = BackendConfig(
        model=options.model,
        revision=options.revision,
        quantization=options.quantization,
        devices=target.devices,
        tensor_parallel_size=target.tensor_parallel_size,
        dtype=target.dtype,
        options={name: value for name, value in target.options.items() if name != "kv_cache_memory"},
        local_engines=target.local_engines,
        engines_per_device=target.engines_per_device,
    )
    torch_config = read_torch_config(config)
    if torch_config.tensor_parallel_size > 1:
        raise ConfigError("a draft model needs --tensor-parallel-size 1")
    device = torch_config.device or default_device()
    if device.kind == "cuda":  # the model's own gets the rest
        memory = kv_cache_budget(torch_device(device), config.engines_per_device) // CUDA_KV_PART
        torch_config = replace(torch_config, kv_cache_memory=memory)
    check_vocabularies(Path(context.card.tokenizer), _tokenizer(options, context.progress))
    runner = TorchRunner(torch_config, device, context.max_num_seqs)
    card = runner.load(context.progress)
    if card.recurrent:
        raise ConfigError("it keeps a state that drafts can't be taken back from")
    return runner, card, runner.allocate(BLOCK_SIZE)


def check_draft_model(config: BackendConfig, progress: Callable[[Progress], None]) -> None:
    """Raise `ConfigError` if the configuration names a draft model with another vocabulary.

    It is checked before any weights are loaded.
    """
    speculation = config.speculative_config
    if speculation is None or speculation.method != METHOD:
        return
    options = drafter_options(speculation.settings, DraftModelOptions)
    target = fetch_tokenizer_files(config.model, config.revision, progress).directory
    with _naming_the_option():
        check_vocabularies(target, _tokenizer(options, progress))


def _tokenizer(options: DraftModelOptions, progress: Callable[[Progress], None]) -> Path:
    return fetch_tokenizer_files(options.model, options.revision, progress).directory


@contextmanager
def _naming_the_option() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ConfigError(f"--speculative-config model: {error.message}") from error


def check_vocabularies(target: Path, draft: Path) -> None:
    """Raise `ConfigError` if the tokenizers in these directories have other tokens."""
    ours, theirs = Tokenizer.load(target).vocabulary(), Tokenizer.load(draft).vocabulary()
    different = min(dict(ours.items() ^ theirs.items()).values(), default=None)
    if different is not None:
        texts = [next((text for text, i in each.items() if i == different), None) for each in (ours, theirs)]
        raise ConfigError(
            f"the draft model has another vocabulary: its token {different} is {texts[1]!r}, and that of the "
            f"model {texts[0]!r}; choose one of the same family"
        )
