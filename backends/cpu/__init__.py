"""Generated CPU code: pruned ONNX → kernels in TensorIR → objects → a shared library that needs neither TVM nor Python.

`kernels` is the only package that imports TVM. `lower` turns a model into a program of kernels over a planned arena,
`artifact` links it, `library` runs it through ctypes.
"""
