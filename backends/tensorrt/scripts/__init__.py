"""Scripts that are copied into every TensorRT package: standard library, numpy and TensorRT only."""
