"""Who runs, at which version, on what: one row per peer, one tuple of methods per kind of pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NM, UNSTRUCTURED, CHANNELS = "2:4", "unstructured", "channels"
KINDS = (NM, UNSTRUCTURED, CHANNELS)
OURS = "prunec"

ONNX = ("numpy==2.4.6", "onnx==1.23.2")
TORCH = (*ONNX, "torch==2.13.0")


@dataclass(frozen=True)
class Peer:
    """`runner` is the module that runs in the peer's environment, `requirements` what pip puts there.

    `methods`: by kind of pruning.
    """

    name: str
    version: str
    runner: str
    requirements: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name="onnxsim",
            version="0.8.1",
            runner="benchmarks.peers.run_onnxsim",
            requirements=(*ONNX, "onnxruntime==1.31.1", "onnxsim==0.8.1"),
            methods={
                NM: ("magnitude", "wanda", "sparsegpt"),
                UNSTRUCTURED: ("magnitude", "wanda", "sparsegpt"),
                CHANNELS: ("structured", "structured-wanda", "structured-wanda + finetune"),
            },
        ),
        Peer(
            name="llm-compressor",
            version="0.14.0.1",
            runner="benchmarks.peers.run_llm_compressor",
            requirements=(*TORCH, "llmcompressor==0.14.0.1"),
            methods={NM: ("wanda", "sparsegpt"), UNSTRUCTURED: ("magnitude", "wanda", "sparsegpt")},
        ),
        Peer(
            name="modelopt",
            version="0.47.0",
            runner="benchmarks.peers.run_modelopt",
            requirements=(
                *TORCH,
                "nvidia-modelopt==0.47.0",
                "huggingface_hub==2.4.0",
                "requests==2.34.2",
            ),  # not declared
            methods={NM: ("sparse_magnitude", "sparsegpt")},
        ),
        Peer(
            name="torch-pruning",
            version="1.6.1",
            runner="benchmarks.peers.run_torch_pruning",
            requirements=(*TORCH, "torch-pruning==1.6.1"),
            methods={CHANNELS: ("group-magnitude",)},
        ),
    )
}


@dataclass(frozen=True)
class Case:
    """`share`: of the weights that become zero, or of the channels that go."""

    kind: str
    share: float

    def __str__(self) -> str:
        return self.kind if self.kind == NM else f"{self.kind} {self.share:.0%}"


def parse_case(text: str) -> Case:
    """`2:4`, `unstructured@0.5`, `channels@0.3`; ValueError for anything else."""
    kind, _, share = text.partition("@")
    if kind not in KINDS or (kind == NM) == bool(share):
        raise ValueError(f"{text!r} is not 2:4, unstructured@SHARE or channels@SHARE")
    found = Case(kind, float(share or 0.5))
    if not 0 < found.share < 1:
        raise ValueError(f"a share lies between 0 and 1, not at {share}")
    return found
