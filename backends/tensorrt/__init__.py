"""TensorRT with 2:4 sparse tensor cores.

`eligibility` says which layers TensorRT can and is expected to run sparse, `half` makes the FP16 graph, `compressed`
the form that the hardware stores, `package` what a person with a GPU needs. `scripts` run on their own: copies of
them go into every package. What needs a GPU is in `scripts` and in `executed`, and says so.
"""
