"""Cut a model of transformers by its own plan of tensor parallelism (``base_model_tp_plan``).

The plan names a style for modules and parameters. What the styles mean is described in
``transformers.distributed.tensor_parallel``; there, weights are DTensors, which our kernels do not take.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fllm.errors import ConfigError
from fllm_backends.torch.ranks import Alone, Ranks, part
from fllm_backends.torch.transformers_lm.loading import describe
from fllm_backends.torch.transformers_lm.model_class import TransformersModel

_OPTION = "--tensor-parallel-size"
_JOINED_OUTPUTS = ("colwise_gather_output", "colwise_rep", "rowwise", "rowwise_split_input", "rowwise_rep")
"""Styles of linear layers whose outputs all ranks need."""
_PACKED = {"packed_colwise": 2, "packed_rowwise": 1}
"""Styles of two matrices in one, and the dimension along which they lie, from the end."""
_WHOLE = ("replicated_with_grad_allreduce", "mla_kv_a_proj", "replicate")
_EXPERTS, _IDENTITY = "moe_tp_experts", "moe_identity_expert"
_EMBEDDING = "embedding_rowwise"
_STYLES = {*_JOINED_OUTPUTS, *_PACKED, *_WHOLE, "colwise", "all_reduce", _EXPERTS, _IDENTITY, _EMBEDDING}
_KEYS = ("k_proj", "qkv_proj", "query_key_value")
"""Names of layers whose outputs are the keys of attention."""


def check_plan(model: TransformersModel, size: int) -> None:
    """Raise `ConfigError` if transformers has no plan for the model, or a size can't be divided."""
    config = model.config.get_text_config(decoder=True)
    plan: dict[str, str] = config.base_model_tp_plan or {}
    if not plan:
        raise ConfigError(f"{_OPTION} {size}: transformers has no plan to divide {model.name}")
    if any(getattr(config, "activation_sparsity_pattern", None) or ()):
        raise ConfigError(
            f"{_OPTION} {size}: {model.name} can't be divided: it compares activations with their mean"
        )
    if unknown := sorted(set(plan.values()) - _STYLES):
        raise ConfigError(f"{_OPTION} {size}: the plan of {model.name} has the style {unknown[0]!r}")
    if any(name.rsplit(".", 1)[-1] in _KEYS and plan[name] == "colwise" for name in plan):
        _check_heads(model.name, config, size)
    DividedModel(describe(model), _First(size), ()).cut()


def _check_heads(name: str, config: Any, size: int) -> None:
    for key, heads in vars(config).items():
        is_heads = key == "num_attention_heads" or key.endswith("key_value_heads")
        if is_heads and isinstance(heads, int) and heads % size:
            raise ConfigError(f"{_OPTION} {size}: {name} has {key}={heads}, which it does not divide")


class _First(Alone):
    """The first of several ranks, which exchanges nothing."""

    def __init__(self, size: int) -> None:
        self.size = size


class DividedModel:
    """The part of one rank of a transformers model.

    Where the plan divides a matrix by its inputs, which adds up partial sums, it is divided by its outputs
    here, and the inputs are exchanged: so each output is rounded and quantized as on one rank alone. Only
    experts that transformers itself computes add up partial sums.
    """

    def __init__(self, model: Any, ranks: Ranks, packed: Collection[nn.Module]) -> None:
        """Read the model's plan. ``model`` is whole; the modules ``packed`` are replaced before `connect`."""
        self._model: nn.Module = model
        self._ranks = ranks
        self._plan: dict[str, str] = model._expand_parallel_plan(dict(model.tp_plan))
        modules = dict(model.named_modules())
        self._modules = {name: modules[name] for name in self._plan if name in modules}
        self._joins = {
            name: module in packed for name, module in self._modules.items() if self._plan[name] == _EXPERTS
        }
        """Whether experts exchange their inner values, by the name of the module."""
        self._shapes = {
            name: tuple(module.weight.shape)
            for name, module in self._modules.items()
            if isinstance(getattr(module, "weight", None), Tensor)
        }
        """Shapes of the whole weights of modules in the plan."""

    def cut(self) -> None:
        """Replace each parameter by this rank's part. Raise `ConfigError` if a size can't be divided."""
        done: dict[tuple[int, str], nn.Parameter] = {}
        for name, parameter in list(self._model.named_parameters(remove_duplicate=False)):
            style = self._plan.get(name)
            if style is None:
                continue
            module, _, own = name.rpartition(".")
            key = id(parameter), "rows" if style != "colwise" else style
            if key not in done:  # tied weights stay tied
                cut = self._cut(name, module, style, parameter.detach())
                done[key] = nn.Parameter(cut, requires_grad=False)
            setattr(self._model.get_submodule(module), own, done[key])

    def connect(self) -> None:
        """Let modules exchange their results with other ranks. Call after modules are replaced."""
        for name in self._modules:
            module: Any = self._model.get_submodule(name)
            style = self._plan[name]
            if style == _EMBEDDING:
                self._connect_embedding(name, module)
            if style == "rowwise":
                self._before(module, self._join(self._shapes[name][1]))
            if style in _JOINED_OUTPUTS:
                self._after(module, self._join(self._shapes[name][0]))
            if self._joins.get(name):
                whole = module.packed_up.outputs * self._ranks.size // (2 if module.has_gate else 1)
                module.join_inner = self._join(whole)
                module.join_outputs = self._join(module.packed_down.outputs * self._ranks.size)
            elif style in (_EXPERTS, "all_reduce"):
                self._after(module, self._ranks.sum)
            if style == _IDENTITY and not self._joins.get(name.rpartition(".")[0]):
                self._before(module, self._share)

    def _join(self, whole: int) -> Callable[[Tensor], Tensor]:
        """Return the function that joins the parts of a dimension of this size."""
        return partial(self._ranks.concatenate, widths=[len(each) for each in self._parts(whole)])

    def _share(self, x: Tensor) -> Tensor:
        """Return what is ``x`` when it is added up over all ranks."""
        return x / self._ranks.size

    def _cut(self, name: str, module: str, style: str, whole: Tensor) -> Tensor:
        if style in _PACKED:
            dim = max(whole.ndim - _PACKED[style], 0)
            half = whole.shape[dim] // 2
            return torch.cat([self._take(name, whole.narrow(dim, at, half), dim) for at in (0, half)], dim)
        if module in self._joins and style in ("rowwise", "colwise"):
            return self._take(name, whole, whole.ndim + self._experts_dim(module, name, style))
        if style in _JOINED_OUTPUTS or style in ("colwise", _EMBEDDING):
            return self._take(name, whole, max(whole.ndim - 2, 0))
        return whole

    def _experts_dim(self, module: str, name: str, style: str) -> int:
        """Return the dimension along which a matrix of experts is cut: [experts, out, in] or transposed."""
        dim = -1 if style == "rowwise" else -2
        is_down = name.endswith(".down_proj")
        return -3 - dim if is_down and self._joins[module] else dim  # the other of the last two

    def _take(self, name: str, whole: Tensor, dim: int) -> Tensor:
        total, size = whole.shape[dim], self._ranks.size
        may_differ = name.startswith("lm_head") or self._plan[name] == _EMBEDDING
        if total < size or (total % size and not may_differ):
            raise ConfigError(f"{_OPTION} {size}: the size of {name!r} is {total}, which it does not divide")
        own = self._parts(total)[self._ranks.rank]
        return whole.narrow(dim, own.start, len(own)).clone()

    def _parts(self, total: int) -> list[range]:
        """Return the parts of all ranks, which are equal if they can be: they must not cut heads."""
        size = self._ranks.size
        if total % size == 0:
            return [range(rank * total // size, (rank + 1) * total // size) for rank in range(size)]
        return [part(total, rank, size) for rank in range(size)]

    def _connect_embedding(self, name: str, module: Any) -> None:
        own = self._parts(self._shapes[name][0])[self._ranks.rank]
        forward, module.padding_idx = module.forward, None

        def embed(ids: Tensor) -> Tensor:
            is_own = (ids >= own.start) & (ids < own.stop)
            embedded: Tensor = forward((ids - own.start).clamp(0, len(own) - 1))
            return self._ranks.sum(embedded * is_own[..., None])

        module.forward = embed

    @staticmethod
    def _before(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))

    @staticmethod
    def _after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:  # noqa: ARG001
            return change(output)

        module.register_forward_hook(hook)
