"""NVIDIA ModelOpt: `sparsify` of a torch module, 2:4. Its own defaults: 10 % damping; masks only, no weight moves."""

from __future__ import annotations

import modelopt.torch.sparsity as mts
import onnx
import torch

from benchmarks.peers.onnx_module import OnnxModule, checked_module
from benchmarks.peers.runner import Job, serve

BATCH = 8


def prune(job: Job) -> onnx.ModelProto:
    module = checked_module(job)

    def forward_loop(model: OnnxModule) -> None:
        with torch.no_grad():
            for batch in job.batches(BATCH):
                model(**{name: torch.from_numpy(array) for name, array in batch.items()})

    config = {"verbose": False, "forward_loop": forward_loop}
    if job.method == "sparsegpt":
        config["device"] = "cpu"
    return mts.export(mts.sparsify(module, job.method, config)).to_onnx()


if __name__ == "__main__":
    serve(prune)
