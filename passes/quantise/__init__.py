"""Static int8: which values and weights get 8 bits, at which scale, and the model with the quantisers written out.

    place → observe → choose ranges → take sensitive layers back → correct biases → round in a walk → write

The result is standard ONNX (QuantizeLinear and DequantizeLinear around float operators), which runtimes fuse.
"""

from prunec.passes.quantise.alone import LayerLosses, layer_losses
from prunec.passes.quantise.driver import Quantised, quantise
from prunec.passes.quantise.roundings import Rounding
from prunec.passes.quantise.sweep import Target
from prunec.passes.quantise.unfitted import unfitted

__all__ = ["LayerLosses", "Quantised", "Rounding", "Target", "layer_losses", "quantise", "unfitted"]
