"""A `ModelRunner` on torch. Importing this module is cheap: torch is imported by `load`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from fllm.batching import KVFormat, PromptImages, Row, RunnerCapabilities, Sampled, check_length
from fllm.config import Device, LoraAdapter
from fllm.errors import ConfigError, RequestError
from fllm.resident_memory import return_freed_memory, unmap_idle_files
from fllm.values import ModelCard, PreparedImages, Progress
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.checkpoints.download import LocalModel, fetch_model
from fllm_backends.checkpoints.lora import read_lora
from fllm_backends.checkpoints.model_card import read_eos_token_ids, read_model_card, read_sampling_defaults
from fllm_backends.checkpoints.quantized.config import QuantizationConfig, read_quantization
from fllm_backends.torch.cpu_binding import bind_thread, first_threads
from fllm_backends.torch.hardware import (
    check_memory,
    num_threads,
    out_of_memory,
    torch_device,
)
from fllm_backends.torch.huge_pages import forbid_huge_pages
from fllm_backends.torch.model_selection import read_model
from fllm_backends.torch.options import TorchConfig
from fllm_backends.torch.quantized.serving import (
    SERVED,
    describe_blocks,
    served_quantization,
)

if TYPE_CHECKING:
    import torch

    from fllm_backends.torch.attention import KVCache
    from fllm_backends.torch.checkpoint import Checkpoint
    from fllm_backends.torch.executor import Draw, Executor
    from fllm_backends.torch.gguf_source import GGUFSource
    from fllm_backends.torch.images.processor import ImageProcessor
    from fllm_backends.torch.lora.adapters import LoraAdapters
    from fllm_backends.torch.model import Decoder, StatefulDecoder, Weights
    from fllm_backends.torch.ranks import Ranks
    from fllm_backends.torch.transformers_lm.class_check import ClassSize
    from fllm_backends.torch.transformers_lm.model_class import TransformersModel
    from fllm_backends.torch.weights import TensorSource

log = logging.getLogger("fllm.model")

UNMAP_INTERVAL = 0.1
"""Seconds between two looks at what is mapped, each of some milliseconds."""


class TorchRunner:
    """Runs a decoder on one device."""

    capabilities = RunnerCapabilities(verifies_drafts=True, applies_masks=True)
    _model: Decoder
    _quantization: str | None = None
    _implementation: Literal["native", "transformers"] = "native"
    _checkpoint_quantization: str | None = None
    _blocks: Counter[str] | None = None
    _packed = False
    _class_size: ClassSize | None = None
    _card: ModelCard
    _files: LocalModel
    _executor: Executor | None = None
    _images: ImageProcessor | None = None
    _image_token: int | None = None
    _adapters: LoraAdapters | None = None

    def __init__(
        self, config: TorchConfig, device: Device, max_num_seqs: int, ranks: Ranks | None = None
    ) -> None:
        """Create the runner of a model; with ``ranks``, of the part of one of them."""
        self._config = config
        self._device = device
        self._max_num_seqs = max_num_seqs
        self._ranks = ranks

    @property
    def decoder(self) -> Decoder:
        """The decoder, once it is loaded."""
        return self._model

    @property
    def cache(self) -> KVCache:
        """The KV cache, once it is allocated."""
        assert self._executor, "allocate comes first"
        return self._executor.cache

    def wrap_decoder(self, wrap: Callable[[Decoder], Decoder]) -> None:
        """Replace the decoder before `allocate`."""
        self._model = wrap(self._model)

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Fetch or convert the model and load its weights. Raise `UserError`."""

        from fllm_backends.torch.lora.attach import attach_lora

        device = torch_device(self._device)
        if device.type == "cpu":
            self._set_up_cpu()
        dtype = self._dtype()
        model = fetch_model(
            self._config.source,
            revision=self._config.revision,
            weights=not self._config.dummy,
            progress=progress,
            check=partial(self._check, device=device),
        )
        self._files = model
        described = self._check(model.directory, device, model.gguf)
        progress = _returning_memory(progress)
        with out_of_memory(f"the weights do not fit into the memory of {device}"):
            if isinstance(described, Architecture):
                self._model = self._native_decoder(described, model, progress)
            else:
                self._model = self._transformers_decoder(described, model, progress)
            if self._config.enable_lora:
                self._adapters = attach_lora(self._model)
        if self._checkpoint_quantization:
            log.info(
                "the checkpoint is quantized: method=%s served_as=%s%s",
                self._checkpoint_quantization,
                self._quantization or dtype,
                f" matrices: {describe_blocks(self._blocks)}" if self._packed and self._blocks else "",
            )
        card = read_model_card(model.directory, described, model.artifact_id, self._runtime(device, dtype))
        self._card = replace(card, images=self._images.support if self._images else None)
        return self._card

    def _set_up_cpu(self) -> None:
        """Bind this thread, and those that it will start, and set their number."""
        import torch

        if self._config.huge_pages == "off":
            forbid_huge_pages()
        if self._config.cpus:
            bind_thread(self._config.cpus)
        torch.set_num_threads(self._config.threads or num_threads(self._config.local_engines * self._size))

    def _check(
        self, directory: Path, device: torch.device, gguf: Path | None = None
    ) -> Architecture | TransformersModel:
        """Check a model before its weights are downloaded or read, and decide how it is served.

        ``gguf`` is the file with the weights, once it is known.
        """
        described = read_model(directory, self._config)
        check_length(described.max_positions, self._config.max_model_len)
        checkpoint, requested = read_quantization(directory), self._config.quantization
        quantization = served_quantization(requested, checkpoint, self._config.dtype, device)
        plain = device.type == "cpu" or self._separate_layers
        if not isinstance(described, Architecture) and plain and requested not in SERVED:
            quantization = None
        if isinstance(described, Architecture) and device.type == "cuda":
            from fllm_backends.torch.cuda.factory import cuda_quantization

            quantization = cuda_quantization(described, requested, quantization)
        if self._separate_layers and device.type == "cuda" and quantization not in (None, "none"):
            option = "--tensor-parallel-size" if self._ranks else "--enable-lora, --lora-modules"
            raise ConfigError(
                f"{option}: on a CUDA device, this needs --quantization none, not {quantization}"
            )
        self._config = replace(self._config, quantization=quantization)
        self._check_size(described, checkpoint, device, gguf)
        read_eos_token_ids(directory, described.vocab_size)
        read_sampling_defaults(directory)
        return described

    def allocate(self, block_size: int) -> int:
        """Allocate as many blocks as memory allows and all sequences can use; return their number."""
        from fllm_backends.torch.executor import Executor
        from fllm_backends.torch.kv_allocation import allocate_cache
        from fllm_backends.torch.model import StatefulDecoder

        if block_size % self._model.block_multiple:
            raise ConfigError(
                f"the block size must be a multiple of {self._model.block_multiple} tokens for this decoder, "
                f"not {block_size}"
            )
        if isinstance(self._model, StatefulDecoder):
            self._allocate_states(self._model)
        cache = allocate_cache(
            self._model,
            block_size,
            self._config,
            max_num_seqs=self._max_num_seqs,
            max_model_len=self._card.max_model_len,
            ranks=self._ranks,
        )
        self._executor = Executor(self._model, cache, self._card.eos_token_ids, self._draw())
        if self._device.kind == "cuda" and cache.num_blocks and not self._ranks and not self._has_state:
            self._warm_up()
        if self._device.kind == "cpu":
            return_freed_memory()
            unmap_idle_files()
        return cache.num_blocks

    def _draw(self) -> Draw:
        """Return what chooses tokens: the kernels, if the weights are packed for them."""
        import torch

        if self._device.kind != "cpu" or self._quantization != "int8":
            from fllm_backends.torch.sampler import draw

            return draw
        from fllm_backends.torch.fused.sampler import compiled_sampler

        return compiled_sampler(torch.get_num_threads(), self._model.vocab_size).sample

    @property
    def _has_state(self) -> bool:
        """Whether layers of the decoder keep a state: rows that begin one are computed alone."""
        from fllm_backends.torch.model import StatefulDecoder

        return isinstance(self._model, StatefulDecoder) and self._model.state_size > 0

    def _allocate_states(self, decoder: StatefulDecoder) -> None:
        size = self._max_num_seqs * decoder.state_size
        check_memory(size, f"the states of --max-num-seqs {self._max_num_seqs} sequences", decoder.device)
        decoder.allocate_states(self._max_num_seqs)

    def kv_format(self) -> KVFormat:
        """Return what the blocks of the KV cache are. Raise `ModelError` if the model's files are gone."""
        from fllm_backends.torch.kv_identity import kv_identity

        cache = self.cache
        identity = kv_identity(self._files, self._model, cache, self._config)
        return KVFormat(block_bytes=cache.block_bytes, identity=identity, name=self._config.source.name)

    def read_blocks(self, blocks: Sequence[int]) -> Sequence[bytes]:
        """Return copies of blocks of the KV cache."""
        return self.cache.read_blocks(blocks)

    def write_blocks(self, blocks: Sequence[int], data: Sequence[bytes | memoryview]) -> None:
        """Replace the content of blocks by what `read_blocks` has returned."""
        self.cache.write_blocks(blocks, data)

    def read_adapter(self, adapter: LoraAdapter) -> Callable[[], None]:
        """Read a LoRA adapter. Raise `ModelError` if it is invalid or does not fit the model."""
        adapters = self._adapters
        assert adapters, "the configuration enables adapters"
        checkpoint = read_lora(Path(adapter.path), self._config.max_lora_rank)
        return partial(adapters.add, adapter.id, adapters.read(checkpoint))

    def remove_adapter(self, adapter_id: int) -> None:
        """Free a LoRA adapter."""
        assert self._adapters, "the adapter was loaded"
        self._adapters.remove(adapter_id)

    def prepare_images(self, images: Sequence[bytes]) -> PreparedImages:
        """Decode the images of one prompt, and prepare them for the model. Raise `RequestError`."""
        if self._images is None:
            raise RequestError("the model accepts text only", param="messages")
        return self._images.prepare(images)

    def take_images(self, keys: Sequence[str], token_ids: Sequence[int]) -> PromptImages:
        """Return the prepared images of a prompt. Raise `BackendUnavailable` or `RequestError`."""
        assert self._images, "`prepare_images` has made the keys"
        assert self._image_token is not None, "it comes with the processor"
        return self._images.take(keys, token_ids, self._image_token)

    def execute(self, batch: Sequence[Row]) -> Sequence[Sampled]:
        """Run one batch."""
        assert self._executor, "execute comes after allocate"
        if self._adapters:
            self._adapters.select(batch)
        return self._executor.execute(batch)

    def close(self) -> None:
        """Release the weights and the cache."""
        import torch

        if self._images is not None:
            self._images.close()
        self._executor = None
        self.__dict__.pop("_model", None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def _size(self) -> int:
        """Number of ranks."""
        return self._ranks.size if self._ranks else 1

    @property
    def _separate_layers(self) -> bool:
        """Whether something happens between the layers, so that they can't be one kernel."""
        return self._config.enable_lora or self._ranks is not None

    def _cores(self) -> tuple[int, ...]:
        """Return a CPU of each core that threads are bound to."""
        return first_threads(self._config.cpus)

    def _dtype(self) -> str:
        if self._config.dtype != "auto":
            return self._config.dtype
        return "float32" if self._device.kind == "cpu" else "bfloat16"

    def _transformers_decoder(
        self, described: TransformersModel, model: LocalModel, progress: Callable[[Progress], None]
    ) -> Decoder:
        """Create the decoder of a class of transformers. Raise `UserError`."""
        import torch

        from fllm_backends.torch.transformers_lm.factory import transformers_decoder

        self._implementation = "transformers"
        packs = self._packs_modules()
        quantization = None if self._config.quantization == "none" else self._config.quantization
        if quantization and not packs and self._device.kind == "cpu":
            raise ConfigError(
                f"--quantization {quantization} needs a native decoder, unlike {described.name}"
            )
        self._quantization = "int8" if packs else quantization
        device = torch_device(self._device)
        dtype = getattr(torch, self._dtype())
        decoder = transformers_decoder(
            described,
            None if self._config.dummy else self._weights(model, device, dtype),
            device=device,
            dtype=dtype,
            seed=self._config.seed,
            threads=torch.get_num_threads() if packs else None,
            cores=self._cores(),
            quantization=None if packs else quantization,
            progress=progress,
            ranks=self._ranks,
        )
        if decoder.image_token is not None:
            self._load_images(model.directory, described.config.model_type, decoder.image_token)
        return decoder

    def _packs_modules(self) -> bool:
        """Return whether the linear layers of a class of transformers are computed on packed weights."""
        if self._device.kind != "cpu" or self._config.quantization not in (None, "int8"):
            return False
        from fllm_backends.torch.fused.target import targets

        return bool(targets())

    def _load_images(self, directory: Path, model_type: str, image_token: int) -> None:
        from fllm_backends.torch.images.processor import find_processor, load_image_processor

        if (name := find_processor(directory, model_type)) is not None:
            self._images, self._image_token = load_image_processor(directory, name), image_token

    def _native_decoder(
        self, architecture: Architecture, model: LocalModel, progress: Callable[[Progress], None]
    ) -> Decoder:
        """Read the weights and create the decoder. Raise `UserError`."""
        import torch

        from fllm_backends.torch.weights import CheckpointSource, load_weights

        device = torch_device(self._device)
        source = self._source(model, device, getattr(torch, self._dtype()))
        decoder = self._decoder(architecture, load_weights(architecture, source, progress), progress)
        if isinstance(source, CheckpointSource) and (unused := source.unused()):
            log.warning(
                "%s has no place for %d weights of the checkpoint, such as %s; they are ignored",
                architecture.name,
                len(unused),
                unused[0],
            )
        return decoder

    def _decoder(
        self, architecture: Architecture, weights: Weights, progress: Callable[[Progress], None]
    ) -> Decoder:
        """Create the decoder. Raise `ConfigError`.

        On a CPU, packed weights are used if they are requested, or if they are supported and not disabled.
        """
        from fllm_backends.torch.model import CausalLM
        from fllm_backends.torch.ranks import ALONE

        ranks = self._ranks or ALONE
        if self._device.kind == "cuda" and not self._separate_layers:
            return self._cuda_decoder(architecture, weights)
        packs, fuses = self._packs(architecture), self._fuses(architecture)
        if self._ranks and not fuses:
            from fllm_backends.torch.division import cut_architecture, cut_weights

            weights = cut_weights(architecture, weights, ranks)
            architecture = cut_architecture(architecture, ranks)
        if packs:
            import torch

            from fllm_backends.torch.fused.decoder import FusedLM
            from fllm_backends.torch.fused.decoder_part import FusedPart
            from fllm_backends.torch.fused.jit import compile_lock
            from fllm_backends.torch.fused.kernel_threads import KernelThreads
            from fllm_backends.torch.fused.packed_lm import PackedLM

            self._quantization, self._packed = "int8", True
            threads = torch.get_num_threads()
            with compile_lock():
                if not fuses:
                    packed = PackedLM(architecture, weights, KernelThreads(threads, self._cores()), ranks)
                    packed.compile()
                    return packed
                kind = partial(FusedPart, ranks=ranks) if self._ranks else FusedLM
                fused = kind(architecture, weights, threads=threads, cores=self._cores())
                progress(Progress("Compiling the kernels", 0, 1))
                fused.compile()
                progress(Progress("Compiling the kernels", 1, 1))
            return fused
        if self._device.kind == "cpu" and self._config.quantization is None:
            log.info(
                "int8 is not used: it needs AVX2 or NEON, and sizes close to multiples of 32; weights=%s",
                self._dtype(),
            )
        if self._config.quantization == "int8":
            raise ConfigError(
                "--quantization int8 needs AVX2 or NEON, and a model with sizes close to multiples of 32"
            )
        return CausalLM(architecture, weights, ranks)

    def _packs(self, architecture: Architecture) -> bool:
        """Return whether the weights are packed for the kernels of a CPU."""
        if self._device.kind != "cpu" or self._config.quantization == "none":
            return False
        from fllm_backends.torch.fused.decoder import is_supported
        from fllm_backends.torch.fused.target import targets

        return bool(targets()) if self._separate_layers else is_supported(architecture)

    def _fuses(self, architecture: Architecture) -> bool:
        """Return whether the layers, or a rank's part of them, are compiled kernels."""
        if (self._config.enable_lora and self._ranks) or not self._packs(architecture):
            return False
        from fllm_backends.torch.fused.decoder import is_supported
        from fllm_backends.torch.fused.layer_packing import can_divide

        return is_supported(architecture) and (
            self._ranks is None or can_divide(architecture, self._ranks.size)
        )

    def _check_size(
        self,
        described: Architecture | TransformersModel,
        checkpoint: QuantizationConfig | None,
        device: torch.device,
        gguf: Path | None,
    ) -> None:
        """Raise `UserError` if the weights, as they are served, and a small KV cache do not fit.

        A class of transformers is checked as a model without weights. Random weights are packed or quantized
        afterwards, so they must fit before.
        """
        from fllm_backends.torch.size_check import WeightForm, check_architecture, check_class_size

        quantization = self._config.quantization
        if isinstance(described, Architecture):
            packed = self._packs(described)
        elif self._config.dummy:
            packed, quantization = False, None
        else:
            packed = self._packs_modules()
        form = WeightForm(
            packed=packed,
            quantization=quantization,
            dtype=self._dtype(),
            checkpoint=checkpoint,
            is_gguf=self._config.source.kind == "gguf",
            gguf=gguf,
        )
        if isinstance(described, Architecture):
            check_architecture(described, form, device, self._size)
            return
        from fllm_backends.torch.transformers_lm.class_check import check_class

        if self._class_size is None:
            self._class_size = check_class(described)
        check_class_size(self._class_size, form, device, self._size)

    def _cuda_decoder(self, architecture: Architecture, weights: Weights) -> Decoder:
        from fllm_backends.torch.cuda.factory import cuda_decoder

        quantization = self._config.quantization or "none"
        self._quantization = None if quantization == "none" else quantization
        length = self._config.max_model_len or architecture.max_positions
        return cuda_decoder(
            architecture,
            weights,
            quantization=quantization,
            max_rows=self._max_num_seqs,
            max_positions=length,
        )

    def _warm_up(self) -> None:
        from fllm_backends.torch.cuda.warmup import warmup_batches

        for batch in warmup_batches(self._max_num_seqs):
            self.execute(batch)

    def _source(self, model: LocalModel, device: torch.device, dtype: torch.dtype) -> TensorSource:
        from fllm_backends.torch.checkpoint import Checkpoint
        from fllm_backends.torch.weights import CheckpointSource, RandomSource

        if self._config.dummy:
            return RandomSource(self._config.seed, device, dtype)
        weights = self._weights(model, device, dtype)
        if not isinstance(weights, Checkpoint):
            return weights
        source = CheckpointSource(weights, device, dtype)
        self._blocks = source.blocks
        return source

    def _weights(
        self, model: LocalModel, device: torch.device, dtype: torch.dtype
    ) -> Checkpoint | GGUFSource:
        """Open the weights, and remember how a checkpoint is quantized."""
        from fllm_backends.torch.checkpoint import Checkpoint

        if model.gguf:
            from fllm_backends.checkpoints.gguf.metadata import Metadata
            from fllm_backends.checkpoints.gguf.weights import GGUFWeights
            from fllm_backends.torch.gguf_source import GGUFSource

            return GGUFSource(GGUFWeights(Metadata(model.gguf)), device, dtype)
        checkpoint = Checkpoint(model.directory)
        self._checkpoint_quantization = checkpoint.quantization
        return checkpoint

    def _runtime(self, device: torch.device, dtype: str) -> dict[str, Any]:
        import torch

        runtime = {
            "device": str(device),
            "dtype": dtype,
            "model_impl": self._implementation,
            "quantization": self._quantization,
            "checkpoint_quantization": self._checkpoint_quantization,
            "torch": str(torch.__version__),
        }
        if device.type == "cpu":
            return runtime | {"threads": torch.get_num_threads()}
        return runtime | {"device_name": torch.cuda.get_device_name(device)}


def _returning_memory(progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Return a function that reports progress, and first gives back what was freed since the last report.

    Weights that were read from a mapped file do not stay in this process, and code that has run once.
    """
    unmapped_at = float("-inf")

    def report(step: Progress) -> None:
        nonlocal unmapped_at
        return_freed_memory()
        if step.done == step.total or time.monotonic() > unmapped_at + UNMAP_INTERVAL:
            unmap_idle_files()
            unmapped_at = time.monotonic()
        progress(step)

    return report
