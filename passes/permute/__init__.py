"""Permute: reorder coupled channels so that a pattern keeps more, which costs nothing at run time and changes nothing.

`layers.py` is what a sparse layer's axes are made of, `find.py` the order of each group that keeps the most saliency
over all of its sparse layers, `trial.py` what that is worth once they are solved, `channels.py` writes an order into a
model. Which channels may change places at all is `prunec.graph.orders`.
"""

from prunec.passes.permute.channels import permute_channels
from prunec.passes.permute.find import Found, find_orders
from prunec.passes.permute.layers import HeldLayer, held_layers
from prunec.passes.permute.trial import Trial

__all__ = ["Found", "HeldLayer", "Trial", "find_orders", "held_layers", "permute_channels"]
