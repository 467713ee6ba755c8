"""onnxsim: zeros and channels straight on the ONNX file. Its own defaults: 1 % damping, L2 norms of channels.

Before channels are cut the model is simplified: batch norms that are not folded stop a chain of layers there. Where
zeros go inside a row does not depend on that. "structured-wanda + finetune" refits what is left by ridge regression.
"""

from __future__ import annotations

import onnx
import onnxsim

from benchmarks.peers.runner import Job, serve


def prune(job: Job) -> onnx.ModelProto:
    model, data = job.dense(), job.batches(1)
    pattern = {"n": 2, "m": 4} if job.kind == "2:4" else {"sparsity": job.share}
    if job.method == "magnitude":
        return onnxsim.apply_magnitude_pruning(model, **pattern)
    if job.kind == "channels":
        model, _ = onnxsim.simplify(model)
        if job.method == "structured":
            return onnxsim.apply_structured_pruning(model, sparsity=job.share)
        pruned = onnxsim.apply_structured_wanda_pruning(model, data, sparsity=job.share)
        return onnxsim.apply_pruning_finetune(model, pruned, data) if "finetune" in job.method else pruned
    apply = {"wanda": onnxsim.apply_wanda_pruning, "sparsegpt": onnxsim.apply_sparsegpt_pruning}[job.method]
    return apply(model, data, **pattern)


if __name__ == "__main__":
    serve(prune)
