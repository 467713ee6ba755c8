"""Torch-Pruning (DepGraph): the same share of every group of channels, by group magnitude; the outputs stay."""

from __future__ import annotations

import onnx
import torch
import torch_pruning

from benchmarks.peers.fit_shapes import fit_shapes
from benchmarks.peers.onnx_module import checked_module
from benchmarks.peers.runner import Job, serve


def prune(job: Job) -> onnx.ModelProto:
    module = checked_module(job)
    torch.manual_seed(job.seed)
    example = {name: torch.from_numpy(array) for name, array in job.batches(1)[0].items()}
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example_inputs=example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=job.share,
        ignored_layers=[module.layer(name) for name in module.last_layers()],
    )
    pruner.step()
    model = module.to_onnx()
    fit_shapes(model)
    return model


if __name__ == "__main__":
    serve(prune)
