"""In ModelOpt's own environment: `python -m benchmarks.run_autocast MODEL.onnx CALIBRATION.npz OUT.onnx METHOD`."""

from __future__ import annotations

import sys

import onnx
from modelopt.onnx.autocast import convert_to_f16, convert_to_mixed_precision


def main() -> None:
    model, data, out, method = sys.argv[1:]
    if method == "f16":
        converted = convert_to_f16(onnx.load(model), keep_io_types=True)
    else:
        converted = convert_to_mixed_precision(model, keep_io_types=True, calibration_data=data)
    onnx.save(converted, out)


if __name__ == "__main__":
    main()
