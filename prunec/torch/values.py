"""Run a module that was built from a graph, and keep values on the way with their gradients."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import fx

from prunec.torch.from_ir import IrModule, values


def run_and_keep(module: IrModule, inputs: Sequence[Any], wanted: Collection[str]) -> dict[str, Any]:
    """ONNX value → tensor for every name in `wanted`; after a backward pass its `grad` is there.

    Inputs are given gradients too, where they are real numbers.
    """
    fx_names = {own: name for own, name in values(module).items() if name in wanted}
    keeper = _Keeper(module, fx_names)
    keeper.run(*[x.requires_grad_() if x.is_floating_point() else x for x in inputs])
    return keeper.kept


class _Keeper(fx.Interpreter):
    def __init__(self, module: IrModule, fx_names: dict[str, str]) -> None:
        super().__init__(module)
        self.fx_names = fx_names
        self.kept: dict[str, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        found = super().run_node(node)
        name = self.fx_names.get(node.name)
        if name is not None and hasattr(found, "requires_grad"):
            self.kept[name] = found
            if found.requires_grad:
                found.retain_grad()
        return found
