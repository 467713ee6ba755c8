"""From a pruned ONNX model to a program: kernels and the buffers they read and write."""
