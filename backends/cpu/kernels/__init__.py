"""Kernel generators in TensorIR, one file each, and what compiles them. The only package that imports TVM."""
