"""Scripts that are copied into every Torch-TensorRT package: standard library, numpy and torch only."""
