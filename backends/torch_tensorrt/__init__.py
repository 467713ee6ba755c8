"""Torch-TensorRT and plain PyTorch on CUDA with 2:4 weights.

`module` exports the pruned graph as a `torch.export` program, `target` proves and writes the package. `scripts` run
on their own: copies of them go into every package. What needs a GPU is in `scripts` and in `executed`, and says so.
"""
