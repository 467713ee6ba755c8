"""The ONNX back end: ONNX Runtime sessions and the plain ONNX artifact."""
