"""Plain PyTorch on CUDA: `torch.sparse.to_sparse_semi_structured` for the linear layers of this package.

    python semi_structured.py [--rounds 30]

PyTorch has sparse kernels for matrices only, in sizes that are multiples of what its library wants (`RULES`); of the
planned layers, those that fit the library that is here (cuSPARSELt, or else CUTLASS) are replaced, in FP16, and the
module is timed against itself before. Convolutions stay dense: PyTorch has no sparse ones. Writes
semi_structured.json. Exit code 0: faster and right; 1: not; 2: no GPU, or none that PyTorch has sparse kernels for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

RULES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "cutlass": {"float16": (32, 64), "bfloat16": (32, 64), "int8": (16, 128)},
    "cusparselt": {"float16": (16, 16), "bfloat16": (16, 16), "int8": (32, 32)},
}
"""Library → type → outputs and inputs have to be multiples of these (torch/sparse/semi_structured.py)."""
TOLERANCE = 3e-2
TURNS = ("aten.t.default", "aten.transpose.int", "aten.permute.default")
PRODUCTS = ("aten.matmul.default", "aten.mm.default")


def refusal(outputs: int, inputs: int, dtype: str = "float16", library: str = "cutlass") -> str | None:
    """Why a weight [outputs, inputs] cannot be semi-structured, or None."""
    rows, columns = RULES[library][dtype]
    if outputs % rows or inputs % columns:
        return f"{library} wants multiples of {rows} × {columns} in {dtype}, this is {outputs} × {inputs}"
    return None


def usable_library(capability: tuple[int, int], *, has_cusparselt: bool) -> str | None:
    """The library whose kernels run here: cuSPARSELt where PyTorch has it, else CUTLASS, which is for 8.x only."""
    if capability < (8, 0):
        return None
    if has_cusparselt:
        return "cusparselt"
    return "cutlass" if capability[0] == 8 else None


def fitting(rows: Sequence[Mapping[str, Any]], library: str) -> dict[str, bool]:
    """Parameter → whether it is stored as [inputs, outputs], of the planned layers that fit `library`."""
    return {row["parameter"]: row["turned"] for row in rows if library in row.get("libraries", ())}


def use_sparse(
    module: torch.fx.GraphModule, weights: Mapping[str, bool], convert: Callable[[torch.Tensor], torch.Tensor]
) -> list[str]:
    """Replace x · W by `linear` with a converted weight, in place; the parameters that could not be.

    `weights`: parameter → whether it is stored as [inputs, outputs]. `convert` gets [outputs, inputs], contiguous.
    """
    left = []
    for name, is_turned in weights.items():
        products = [product for node in _reads(module.graph, name) for product in _products(node, is_turned)]
        if not products:
            left.append(name)
            continue
        weight = module.get_parameter(name).detach()
        holder = f"{name.replace('.', '_')}_sparse"
        converted = convert((weight.t() if is_turned else weight).contiguous())
        setattr(module, holder, torch.nn.Parameter(converted, requires_grad=False))
        for product, data in products:
            with module.graph.inserting_before(product):
                attribute = module.graph.get_attr(holder)
                new = module.graph.call_function(torch.nn.functional.linear, (data, attribute))
            product.replace_all_uses_with(new)
            module.graph.erase_node(product)
    module.graph.eliminate_dead_code()
    module.recompile()
    return left


def _reads(graph: torch.fx.Graph, name: str) -> list[Any]:
    return [node for node in graph.nodes if node.op == "get_attr" and node.target == name]


def _products(weight: Any, is_turned: bool) -> list[tuple[Any, Any]]:
    """(product node, its other operand) of x · W where W is [inputs, outputs] by the time it is used."""
    values = [weight] if is_turned else [user for user in weight.users if str(user.target) in TURNS]
    found = []
    for value in values:
        for user in value.users:
            if str(user.target) in PRODUCTS and user.args[1] is value:
                found.append((user, user.args[0]))
    return found


def load(folder: Path, file: str) -> Any:
    """The module of an exported program, with the checks of its input shapes left out (FP16 is no other shape)."""
    return torch.export.load(folder / file).module(check_guards=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time semi-structured linear layers in PyTorch.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("PyTorch finds no CUDA GPU here; this needs one of compute capability 8.0 or newer\n")
        return 2
    capability, has_cusparselt = torch.cuda.get_device_capability(), torch.backends.cusparselt.is_available()
    library = usable_library(capability, has_cusparselt=has_cusparselt)
    if library is None:
        have = f"compute capability {capability[0]}.{capability[1]}, {'with' if has_cusparselt else 'no'} cuSPARSELt"
        sys.stderr.write(f"PyTorch has no sparse kernels here ({have}): 8.x will do, newer GPUs need cuSPARSELt\n")
        return 2
    torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS = library == "cutlass"
    rows = json.loads((given.folder / "sparsity.json").read_text())["semi_structured"]
    weights = fitting(rows, library)
    with np.load(given.folder / "vectors.npz") as arrays:
        found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    data = [array.half() if array.is_floating_point() else array for key, array in found.items() if key[:3] == "in:"]
    data = [array.cuda() for array in data]
    expected = [array for key, array in found.items() if key[:4] == "out:"]
    modules = {arm: load(given.folder, "module.pt2").half().cuda() for arm in ("dense", "sparse")}
    left = use_sparse(modules["sparse"], weights, torch.sparse.to_sparse_semi_structured)
    medians: dict[str, list[float]] = {arm: [] for arm in modules}
    with torch.inference_mode():
        for number in range(given.rounds + 1):
            for arm in list(modules)[:: 1 if number % 2 else -1]:
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(10):
                    answer = modules[arm](*data)
                torch.cuda.synchronize()
                medians[arm] += [(time.perf_counter() - start) * 100] * (number > 0)  # the first round warms up
        answer = modules["sparse"](*data)
    answers = answer if isinstance(answer, tuple) else (answer,)
    error = max(
        float((a.float().cpu() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-30))
        for a, b in zip(answers, expected, strict=True)
    )
    ratio = float(np.median(np.array(medians["dense"]) / np.array(medians["sparse"])))
    results = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "library": library,
               "replaced": len(weights) - len(left), "left": left,
               "latency_ms": {arm: float(np.median(times)) for arm, times in medians.items()},
               "speedup": ratio, "max_rel": error}  # fmt: skip
    (given.folder / "semi_structured.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    return 0 if ratio > 1 and error <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
