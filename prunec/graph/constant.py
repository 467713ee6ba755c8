"""Channels that carry a constant: every weight that makes them is zero, so only biases and norms are left (class B).

Cutting such a channel is exact once its constant is folded into the biases of its consumers, which is what bias
compensation does with the channel's mean; at zero-padded borders of a convolution the constant was missing, so there
it is not. A constant that something varying multiplies on its way (a gate) is not constant any more: measured
statistics decide, this only says where to look.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES
from prunec.graph.groups import Group
from prunec.graph.mapped import opened


def constant_channels(model: ir.Model, group: Group) -> np.ndarray:
    """bool [group.size]: True where every producing weight of the channel is zero."""
    constant = np.ones(group.size, bool)
    for member in group.producers():
        value = model.graph.initializers[member.tensor].const_value
        assert value is not None
        if value.dtype not in FLOAT_TYPES:
            return np.zeros(group.size, bool)  # the integer that stands for zero is not looked up
        used = np.zeros(member.length, bool)
        used[member.places] = True
        makes = _makes(np.moveaxis(opened(value), member.axis, 0), used)
        np.logical_and.at(constant, member.channels, ~makes[member.places])
    return constant


def _makes(rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Whether any weight of a row is not zero: one weight answers for nearly all rows."""
    makes = np.array(rows[(slice(None),) + (0,) * (rows.ndim - 1)] != 0)
    for row in np.flatnonzero(~makes & used):
        makes[row] = bool(np.any(rows[row] != 0))
    return makes
