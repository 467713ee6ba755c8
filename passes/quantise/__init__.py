"""Static int8: which values and weights get 8 bits, at which scale, and the model with the quantisers written out.

    place → observe → choose ranges → write → correct biases → take sensitive layers back

The result is standard ONNX (QuantizeLinear and DequantizeLinear around float operators), which runtimes fuse.
"""

from prunec.passes.quantise.driver import Quantised, quantise

__all__ = ["Quantised", "quantise"]
