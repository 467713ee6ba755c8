"""A peer without an environment: what `serve` makes of success, exceptions and limits."""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.peers.runner import Job, serve


def prune(job: Job) -> onnx.ModelProto:
    if job.method == "raise":
        raise ValueError("no such layer\nand more lines")
    if job.method == "die":
        os._exit(3)
    if job.method == "spin":
        while True:
            pass
    if job.method == "allocate":
        np.ones(1 << 40, np.uint8)
    if job.method == "break":
        return broken(job)
    return masked(job)


def broken(job: Job) -> onnx.ModelProto:
    """A classifier that was cut, and what it reads was not."""
    model = job.dense()
    for weight in model.graph.initializer:
        if weight.name == "head_weight":
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, :6].copy(), weight.name))
    return model


def masked(job: Job) -> onnx.ModelProto:
    """Zeros in the share of the case, the first weights of each layer; under new names, the old ones left behind."""
    model = job.dense()
    assert sum(len(batch["image"]) for batch in job.batches(100)) == 10
    assert {len(batch["image"]) for batch in job.batches(1)} == {1}
    assert len(job.answers()[0]) == 4
    for weight in list(model.graph.initializer):
        if weight.name.endswith("weight"):
            array = numpy_helper.to_array(weight).copy()
            array.reshape(-1)[: int(array.size * job.share)] = 0
            model.graph.initializer.append(numpy_helper.from_array(array, f"{weight.name}_pruned"))
            for node in model.graph.node:
                node.input[:] = [f"{name}_pruned" if name == weight.name else name for name in node.input]
    return model


if __name__ == "__main__":
    serve(prune)
