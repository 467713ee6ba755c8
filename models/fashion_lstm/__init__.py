"""fashion-lstm: two bidirectional LSTM layers that read Fashion-MNIST row by row; the zoo's recurrent network.

Input `image` [b, 1, 28, 28], (x/255 − .2860)/.3530; output `logits` [b, 10]. `train.py` made `fashion_lstm.onnx`, which
ships with prunec. Data and metric are those of fashion-net: calibration takes training images, the metric all 10 000
test images.
"""

from __future__ import annotations

from pathlib import Path

from prunec.models.fashion_net import calibration, metric, test_inputs
from prunec.models.fetch import Progress

__all__ = ["build", "calibration", "metric", "test_inputs"]

SHIPPED = Path(__file__).parent / "fashion_lstm.onnx"


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """A copy of the file that ships with prunec; fetches nothing."""
    target = folder / "fashion-lstm.onnx"
    target.write_bytes(SHIPPED.read_bytes())
    return target
