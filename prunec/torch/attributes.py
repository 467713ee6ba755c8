"""Numbers that modules keep beside their parameters: widths, heads, groups.

Known classes are brought in line with the shapes of their parameters. Other modules have integers of well-known names
(`num_heads`, `hidden_size`); one that equals a length of the dense model which was cut becomes the new length. That is
a guess, and the numbers decide whether it was right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_HEADS = frozenset(
    "num_heads n_heads num_attention_heads n_head nhead nheads heads num_key_value_heads num_kv_heads n_kv_heads "
    "kv_heads".split()
)
_HEAD_WIDTHS = ("head_dim", "head_size", "d_head", "attention_head_size", "dim_head")
_NAMES = _HEADS | frozenset(
    "all_head_size inner_dim hidden_dim hidden_size dim channels width embed_dim head_width num_channels inner "
    "out_channels in_channels n_channels features num_features intermediate_size".split()
)


def update_known(module: nn.Module, groups: int | None) -> None:
    """Bring the attributes of a layer in line with its parameters; `groups` where that number changed."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        module.groups = module.groups if groups is None else groups
        first, second = weight.shape[:2]
        transposed = module.transposed
        module.in_channels = first if transposed else second * module.groups
        module.out_channels = second * module.groups if transposed else first
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        size = next((t for t in (weight, module.running_mean) if t is not None), None)
        module.num_features = module.num_features if size is None else len(size)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = module.num_channels if weight is None else len(weight)
    elif isinstance(module, nn.LayerNorm | getattr(nn, "RMSNorm", nn.LayerNorm)):
        module.normalized_shape = module.normalized_shape if weight is None else tuple(weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.numel()
    elif isinstance(module, nn.RNNBase):
        module.input_size = module.weight_ih_l0.shape[1]
        module.hidden_size = module.weight_hh_l0.shape[1]
        module._init_flat_weights()
    elif isinstance(module, nn.MultiheadAttention):
        module.embed_dim = module.out_proj.weight.shape[0]
        module.num_heads = module.embed_dim // module.head_dim


def misfit(module: nn.Module) -> tuple[str, str] | None:
    """Why a known layer cannot have the widths of its parameters, and what to write instead; None where it can."""
    if isinstance(module, nn.MultiheadAttention):
        made = module.in_proj_weight if module.in_proj_weight is not None else module.q_proj_weight
        inside = module.out_proj.weight.shape[1]
        if inside != module.out_proj.weight.shape[0] or made.shape[1] != module.out_proj.weight.shape[0]:
            return (
                "nn.MultiheadAttention is as wide inside as outside, so it cannot lose heads by themselves",
                "write its projections as four nn.Linear around F.scaled_dot_product_attention, or exclude them",
            )
    if isinstance(module, nn.RNNBase) and module.num_layers > 1:
        parameters = dict(module.named_parameters())
        if len({p.shape[1] for name, p in parameters.items() if name.startswith("weight_hh")}) > 1:
            kind = type(module).__name__
            return (
                f"nn.{kind} gives all of its layers one hidden size, and these were cut to different ones",
                f"write one nn.{kind} for each layer",
            )
    return None


def guess(module: nn.Module, lengths: Iterable[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Integers of `module` itself that equal a length that was cut: name → (before, after), where it is unambiguous.

    A number of heads is looked for in lengths of that many head widths, where the module says how wide a head is.
    """
    after: dict[int, set[int]] = {}
    for old, new in lengths:
        after.setdefault(old, set()).add(new)
    width = next((w for w in (vars(module).get(name) for name in _HEAD_WIDTHS) if type(w) is int and w > 0), None)
    found = {}
    for name, value in vars(module).items():
        if name not in _NAMES or type(value) is not int:
            continue
        news = after.get(value, set())
        if name in _HEADS and width is not None:
            news = {cut // width for cut in after.get(value * width, ()) if cut % width == 0}
        if len(news) == 1:
            found[name] = (value, next(iter(news)))
    return found


def is_known(module: Any) -> bool:
    """Whether `update_known` looks after this class."""
    known = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.modules.batchnorm._NormBase, nn.GroupNorm,
             nn.LayerNorm, nn.PReLU, nn.RNNBase, nn.MultiheadAttention)  # fmt: skip
    return isinstance(module, known) and not isinstance(module, torch.nn.LazyLinear)
