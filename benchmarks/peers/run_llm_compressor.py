"""llm-compressor: `oneshot` of a transformer, in its own order of layers, or of any module in one pass.

It takes models of transformers only: minilm-l6 becomes their BertModel; every other network is wrapped, and pruned with
the pipeline "basic", which needs no transformer blocks. There it is given linear layers and 1×1 convolutions: at larger
kernels 0.14 ends with an error, since its statistics have one column for each input channel only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from llmcompressor import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.pruning import MagnitudePruningModifier, SparseGPTModifier, WandaPruningModifier
from onnx import numpy_helper
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel, PreTrainedModel

from benchmarks.peers.onnx_module import OnnxModule, checked_module
from benchmarks.peers.runner import Job, serve


class Wrapped(PreTrainedModel):
    """What `oneshot` asks of a model: the class, and a configuration on disk."""

    config_class = BertConfig
    _no_split_modules = ("OnnxModule",)

    def __init__(self, config: BertConfig, module: OnnxModule) -> None:
        super().__init__(config)
        self.module = module

    def forward(self, **inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.module(**inputs)


def prune(job: Job) -> onnx.ModelProto:
    module = checked_module(job)
    if job.model == "minilm-l6":
        model: PreTrainedModel = _bert(job.dense())
        targets, pipeline = ["Linear"], "sequential"
    else:
        model, pipeline = Wrapped(BertConfig(), module), "basic"
        targets = [name for name, layer in model.named_modules() if _is_pointwise(layer)]
    _give_configuration(model, job.folder)
    samples = [{name: torch.from_numpy(array[0]) for name, array in batch.items()} for batch in job.batches(1)]
    torch.manual_seed(job.seed)
    oneshot(
        model=model, dataset=DataLoader(samples, batch_size=1), recipe=[_modifier(job, targets)], pipeline=pipeline,
        num_calibration_samples=len(samples),
    )  # fmt: skip
    return module.to_onnx() if isinstance(model, Wrapped) else _written(model, job.dense())


def _is_pointwise(layer: nn.Module) -> bool:
    is_convolution = isinstance(layer, nn.Conv2d) and layer.groups == 1 and set(layer.kernel_size) == {1}
    return isinstance(layer, nn.Linear) or is_convolution


def _modifier(job: Job, targets: list[str]) -> Modifier:
    if job.method == "magnitude":
        return MagnitudePruningModifier(
            targets=targets, init_sparsity=job.share, final_sparsity=job.share, mask_structure="unstructured",
            start=0, end=1,
        )  # fmt: skip
    modifier = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[job.method]
    return modifier(sparsity=job.share, mask_structure="2:4" if job.kind == "2:4" else "0:0", targets=targets)


def _give_configuration(model: nn.Module, folder: Path) -> None:
    """`oneshot` reads the configuration from where the model says it came from."""
    model.config.save_pretrained(folder)
    model.config.name_or_path = str(folder)
    model.eval()


def _bert(dense: onnx.ModelProto) -> BertModel:
    """The encoder with the graph's weights; products there are stored as [in, out]."""
    state = {weight.name: np.array(numpy_helper.to_array(weight)) for weight in dense.graph.initializer}
    products = {node.input[1] for node in dense.graph.node if node.op_type == "MatMul"}
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        layer_norm_eps=1e-12,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    tensors = {name: torch.from_numpy(array.T if name in products else array) for name, array in state.items()}
    wanted = model.state_dict()
    model.load_state_dict({name: tensors[name] for name in wanted if name in tensors}, strict=False)
    missing = [name for name, _ in model.named_parameters() if name not in tensors]
    if missing:
        raise ValueError(f"the graph has no {missing[0]}")
    return model


def _written(model: BertModel, dense: onnx.ModelProto) -> onnx.ModelProto:
    products = {node.input[1] for node in dense.graph.node if node.op_type == "MatMul"}
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    for weight in dense.graph.initializer:
        if weight.name in state:
            array = state[weight.name].T if weight.name in products else state[weight.name]
            weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), weight.name))
    return dense


if __name__ == "__main__":
    serve(prune)
