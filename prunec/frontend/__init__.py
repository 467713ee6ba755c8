"""Front ends: ONNX files to IR, and the calibration data that goes with them."""
