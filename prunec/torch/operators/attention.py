"""Fused attention: opset 23's Attention, and what ONNX Runtime calls MultiHeadAttention."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch

from prunec.graph.rules.base import attribute, given


def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    *,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    scale: float | None = None,
    is_causal: int = 0,
    softcap: float = 0.0,
    **_: Any,
) -> Any:
    """Y, present key, present value. q [N, T, h·d] or [N, h, T, d]; query heads may share key-value heads."""
    packed = q.dim() == 3
    if packed:
        q, k, v = (_heads(x, n) for x, n in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads)))
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None:
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    repeats = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(repeats, 1) if repeats > 1 else x for x in (k, v))
    scores = (q @ keys.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril(past)
        scores = scores.masked_fill(~allowed, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    y = torch.softmax(scores, -1) @ values
    return (_unheads(y) if packed else y), k, v


def multi_head_attention(
    q: Any,
    k: Any = None,
    v: Any = None,
    bias: Any = None,
    key_padding_mask: Any = None,
    attention_bias: Any = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    mask_filter_value: float = -10000.0,
) -> Any:
    """com.microsoft: q, k, v [N, T, h·d], a bias for all three behind each other."""
    if bias is not None:
        parts = torch.split(bias, [q.shape[-1], k.shape[-1], v.shape[-1]])
        q, k, v = q + parts[0], k + parts[1], v + parts[2]
    q, k, v = (_heads(x, num_heads) for x in (q, k, v))
    y, _, _ = attention(q, k, v, attention_bias, scale=scale or None, is_causal=unidirectional)
    return _unheads(y)


def _heads(x: Any, count: int | None) -> Any:
    assert count is not None
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _unheads(x: Any) -> Any:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _attention_refusal(node: ir.Node) -> str | None:
    if given(node, 6):
        return "nonpad_kv_seqlen"
    if any(attribute(node, name, -1) != -1 for name in ("left_window_size", "right_window_size")):
        return "a sliding window"
    if len(node.outputs) > 3 and node.outputs[3].uses():
        return "its scores are an output"
    return None


def _contrib_refusal(node: ir.Node) -> str | None:
    if not given(node, 1) or not given(node, 2):
        return "packed queries, keys and values"
    if any(given(node, i) for i in (4, 6, 7, 8, 9)):
        return "a padding mask or a cache"
    return "more than one output" if len(node.outputs) > 1 else None


OPERATORS = {"Attention": attention, "com.microsoft::MultiHeadAttention": multi_head_attention}
REFUSALS = {"Attention": _attention_refusal, "com.microsoft::MultiHeadAttention": _contrib_refusal}
