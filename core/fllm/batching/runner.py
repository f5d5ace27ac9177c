"""The interface of a device: load a model, allocate its KV cache, execute one batch."""

from __future__ import annotations

from collections import abc
from typing import Protocol, runtime_checkable

from msgspec import Struct

from fllm.config import LoraAdapter
from fllm.errors import ConfigError
from fllm.values import ModelCard, PreparedImages, Progress, SamplingParams, TokenLogprob


class PromptImages(Struct, frozen=True):
    """The images of one prompt. A runner's own subclass holds what its model needs of them."""

    end: int
    """Number of first tokens of the prompt that are computed in one row: up to the last image."""


class Row(Struct, frozen=True, kw_only=True):
    """One sequence's part of a batch: compute ``count`` tokens from position ``start``.

    The KV of positions before ``start`` are in the cache. Write the KV of the ``count`` new positions there.
    Position ``p`` is stored in block ``block_table[p // block_size]`` at offset ``p % block_size``.
    """

    token_ids: abc.Sequence[int]
    """Tokens of the prompt and the output so far, at least ``start + count``. Read them only during
    `execute`, because the list grows afterwards."""
    prompt_length: int
    """Number of ``token_ids`` that belong to the prompt."""
    start: int
    """Position of the first token to compute."""
    count: int
    """Number of tokens to compute."""
    block_table: abc.Sequence[int]
    """Blocks of the sequence, in order."""
    slot: int = 0
    """Number, less than ``max_num_seqs``, that no other running sequence has. It stays the same until the
    sequence ends or starts again at position 0, so a runner can keep a state of the sequence by it."""
    sampling: SamplingParams
    seed: int
    """Seed of this sequence. The random number for position ``p`` depends only on ``(seed, p)``, not on
    other rows."""
    sample: bool
    """Whether to sample the token after the last one. False for a chunk that does not complete its prompt."""
    drafts: int = 0
    """Number of draft tokens at the end of the ``count`` tokens. To verify them, sample after the token
    before the first draft and after each draft, always as if the row ended there, as long as the sample
    equals the next draft. See `fllm.batching.verify_drafts`."""
    mask: abc.Callable[[], memoryview] | None = None
    """Function that returns the bitmask of the tokens that may be sampled, if the request restricts them. It
    may wait for a moment, so call it as late as possible. If the mask is late, it allows all tokens, and the
    sample is dropped. Token ``i`` is bit ``i % 32`` of native
    int32 number ``i // 32``. All other tokens are impossible, whatever biases and penalties are set.
    Do not ban stop tokens in addition."""
    images: PromptImages | None = None
    """The images of the prompt, from `TakesImages.take_images`. The row at position 0 has all tokens up to
    ``images.end``."""
    prompt_logprobs: bool = False
    """Whether to return log-probabilities of the prompt tokens at positions ``start + 1`` to
    ``start + count``."""
    adapter: int = 0
    """Id of the LoRA adapter to apply; 0 for none. Only for runners that are `AppliesAdapters`."""


class Sampled(Struct, frozen=True, kw_only=True):
    """The result of one row."""

    token_id: int | None = None
    """Sampled token; ``None`` if the row has ``sample=False``. For a row with drafts: the first sample that
    differs from its draft, or the sample after the last draft."""
    accepted: int = 0
    """Number of drafts that were sampled. They precede ``token_id``."""
    logprob: TokenLogprob | None = None
    """Log-probability of ``token_id``, if ``sampling.logprobs`` is set, by the model's own distribution
    before temperature and penalties."""
    accepted_logprobs: list[TokenLogprob] = []
    """The same for each accepted draft."""
    prompt_logprobs: list[TokenLogprob] = []
    """Log-probabilities of the prompt tokens at positions ``start + 1`` to ``start + count``, if the row
    has ``prompt_logprobs=True``."""


class RunnerCapabilities(Struct, frozen=True, kw_only=True):
    """Optional features of a `ModelRunner`."""

    verifies_drafts: bool = False
    """Accepts rows with `Row.drafts`: ``--speculative-config`` needs it."""
    applies_masks: bool = False
    """Accepts rows with `Row.mask`: constrained decoding, thinking budgets, ``allowed_token_ids`` and
    ``bad_words`` need it."""


@runtime_checkable
class ModelRunner(Protocol):
    """A device with a model. All methods are called from one thread, which is not that of the event loop."""

    @property
    def capabilities(self) -> RunnerCapabilities:
        """Optional features; usually a class attribute. Must not change."""
        ...

    def load(self, progress: abc.Callable[[Progress], None]) -> ModelCard:
        """Read the weights and return the model card. Raise `fllm.UserError` for what the user can fix."""
        ...

    def allocate(self, block_size: int) -> int:
        """Allocate the KV cache in blocks of ``block_size`` tokens and return the number of blocks.

        Called once, after `load`.
        """
        ...

    def execute(self, batch: abc.Sequence[Row]) -> abc.Sequence[Sampled]:
        """Run the model once over all rows, sample, and return one result per row, in the order of the rows.

        Rows may share blocks, and a row may read what an earlier row of the same batch writes. So each layer
        must write the KV of all rows before it attends. No row's result may depend on the other rows.
        Raise `fllm.BackendLost` if no later batch can succeed: the engine ends. Any other error fails the
        batch alone.
        """
        ...

    def close(self) -> None:
        """Free the device's memory. Called once, after the last `execute`."""
        ...


@runtime_checkable
class ReportsLoss(Protocol):
    """A `ModelRunner` whose device, or a part of it, may be lost while no batch runs."""

    def check(self) -> None:
        """Raise `fllm.BackendLost` with the reason if the device is lost: the engine is started again.

        Called on the event loop, about once a second, so it must be quick.
        """
        ...


@runtime_checkable
class TakesImages(Protocol):
    """A `ModelRunner` whose models may take images."""

    def prepare_images(self, images: abc.Sequence[bytes]) -> PreparedImages:
        """Decode the image files of one prompt, and keep what the model needs of them under the keys.

        Called from other threads than the runner's own, also while `execute` runs. Raise `fllm.RequestError`
        for a file that is not an image, or is too large.
        """
        ...

    def take_images(self, keys: abc.Sequence[str], token_ids: abc.Sequence[int]) -> PromptImages:
        """Return the prepared images of a prompt with these tokens.

        Called on the event loop, so it must be quick. Raise `fllm.BackendUnavailable` if they are not there
        any more, `fllm.RequestError` if the prompt does not have the tokens of these images.
        """
        ...


@runtime_checkable
class AppliesAdapters(Protocol):
    """A `ModelRunner` that applies LoRA adapters: ``--lora-modules`` needs it.

    The rows of a batch may have different adapters.
    """

    def read_adapter(self, adapter: LoraAdapter) -> abc.Callable[[], None]:
        """Read and check an adapter. Raise `fllm.UserError` for what the user can fix.

        Called after `ModelRunner.load`, in any thread. Return a function that makes the adapter available to
        rows. It is called between two batches, in the thread of the runner, and may raise the same errors.
        """
        ...

    def remove_adapter(self, adapter_id: int) -> None:
        """Free an adapter. Called between two batches; no later row has it."""
        ...


class KVFormat(Struct, frozen=True, kw_only=True):
    """What the bytes of a block are."""

    block_bytes: int
    """Number of bytes of each block."""
    identity: abc.Mapping[str, str]
    """By name, everything that decides which bytes a block has for given tokens: the weights, their
    quantization, the code that computes them, the type and layout of the KV cache. A runner can read the
    blocks of any other that has an equal identity, also in another process."""
    name: str = ""
    """Name of the model for people, which identifies nothing."""


@runtime_checkable
class MovesBlocks(Protocol):
    """A `ModelRunner` whose blocks can be copied: ``--kv-offload-memory`` and ``--kv-cache-dir`` need it.

    Called between two batches, in the thread of the runner.
    """

    def kv_format(self) -> KVFormat:
        """Return what its blocks are. Called once, after `ModelRunner.allocate`."""
        ...

    def read_blocks(self, blocks: abc.Sequence[int]) -> abc.Sequence[bytes]:
        """Return copies of the keys and values of all layers, for each block `KVFormat.block_bytes`."""
        ...

    def write_blocks(self, blocks: abc.Sequence[int], data: abc.Sequence[bytes | memoryview]) -> None:
        """Replace the content of blocks by what `read_blocks` has returned."""
        ...


def check_runner(runner: object) -> None:
    """Raise `ConfigError` unless ``runner`` has every member of `ModelRunner`."""
    if not isinstance(runner, ModelRunner):
        members = "capabilities, load, allocate, execute and close"
        raise ConfigError(f"the model runner {type(runner).__name__} needs the members {members}")
    capabilities: object = runner.capabilities
    if not isinstance(capabilities, RunnerCapabilities):
        raise ConfigError(
            f"{type(runner).__name__}.capabilities must be a fllm.batching.RunnerCapabilities, "
            f"not {capabilities!r}"
        )
