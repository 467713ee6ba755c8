"""Canonical ONNX → `torch.fx.GraphModule`: the same function, with gradients.

Float initializers become parameters, except single numbers, constants that are not finite (masks), and what an
operator calls a buffer (running statistics, bounds); everything else becomes a buffer. Names are those of the
initializers with every character that no attribute may have replaced; `names(module)` maps them back. Constant
integers that an operator reads as a list (shapes, axes) are written into the call. If is a submodule with two
branches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from prunec.diagnostics import PrunecError
from prunec.graph.cost import FLOAT_TYPES
from prunec.graph.shapes import is_constant
from prunec.torch.operators import Operator, operator_for, operators

_INLINE = 64
"""Longest constant list of integers that is written into a call."""
_META = "prunec"


def to_graph_module(model: ir.Model, *, trainable: Collection[str] = ()) -> IrModule:
    """A module in evaluation mode whose forward takes the graph's inputs in order and returns its outputs.

    One output is returned as it is, several as a tuple. `trainable`: initializers that are parameters although they
    are single numbers. The batch is as dynamic as it is in `model`, which stays as it is and shares no memory.

    Raises:
        PrunecError PC040: operators that cannot be translated, each with a node.
    """
    refuse_unknown(model.graph)
    return _Builder(model.graph, frozenset(trainable)).build(model.graph.name or "model")


def names(module: IrModule) -> dict[str, str]:
    """Parameter or buffer → initializer."""
    return dict(module.meta[_META]["names"])


def values(module: IrModule) -> dict[str, str]:
    """Name in the module's graph → value of the ONNX graph (inputs, and what nodes compute)."""
    return dict(module.meta[_META]["values"])


def refuse_unknown(graph: ir.Graph) -> None:
    """PC040 for the first node that cannot be translated; the message has all operators that stand in the way."""
    refused: dict[str, tuple[str, str]] = {}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        reason = _refusal(node)
        if reason is not None:
            refused.setdefault(f"{node.op_type}{reason}", (node.name or node.op_type, f"{node.op_type}{reason}"))
    if refused:
        what = ", ".join(text for _, text in refused.values())
        places = ", ".join(place for place, _ in refused.values())
        hint = "add a function for it to prunec/torch/operators, see docs/extending.md"
        raise PrunecError("PC040", f"no torch function for: {what}", where=places, hint=hint)


def _refusal(node: ir.Node) -> str | None:
    if node.op_type in ("If", "Constant") and node.domain in ("", "ai.onnx"):
        return None
    operator = operator_for(node)
    if operator is None:
        return f" of domain {node.domain}" if node.domain not in ("", "ai.onnx") else ""
    reason = operator.refusal(node) if operator.refusal else None
    return None if reason is None else f" ({reason})"


class _Builder:
    """Builds one graph; `outer` are the values that a branch takes from around it."""

    def __init__(self, graph: ir.Graph, trainable: frozenset[str], outer: Iterable[ir.Value] = ()) -> None:
        self.source = graph
        self.trainable = trainable
        self.outer = list(outer)
        self.root = torch.nn.Module()
        self.graph = fx.Graph(tracer_cls=OperatorTracer)
        self.values: dict[ir.Value, fx.Node] = {}
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self.fixed = frozenset(self._buffers())

    def build(self, name: str) -> IrModule:
        inputs = [value for value in self.source.inputs if value.name not in self.source.initializers]
        for value in [*inputs, *self.outer]:
            self.values[value] = self.graph.placeholder(self.unique(value.name or "input"))
        for node in self.source:
            self.node(node)
        results = [self.value(value) for value in self.source.outputs]
        self.graph.output(results[0] if len(results) == 1 else tuple(results))
        module = IrModule(self.root, self.graph, class_name=identifier(name))
        module.meta[_META] = {
            "names": self.names,
            "values": {node.name: str(value.name) for value, node in self.values.items() if value.const_value is None},
        }
        module.eval()
        return module

    # -- nodes --------------------------------------------------------------------------------------------------
    def node(self, node: ir.Node) -> None:
        if node.op_type == "Constant":
            self.values[node.outputs[0]] = self.constant(node.outputs[0].name or "", _constant_of(node), False)
            return
        if node.op_type == "If":
            found = self.branches(node)
        else:
            operator = operator_for(node)
            assert operator is not None
            found = self.graph.call_function(operator.function, *self.arguments(node, operator))
        self.bind(node, found)

    def bind(self, node: ir.Node, found: fx.Node) -> None:
        used = [output for output in node.outputs if output.name]
        found.name = self.unique(node.outputs[0].name or node.name or node.op_type)
        if len(node.outputs) == 1 and not _returns_tuple(node):
            self.values[node.outputs[0]] = found
            return
        for index, output in enumerate(node.outputs):
            if output in used:
                self.values[output] = self.graph.call_function(_item, (found, index))

    def arguments(self, node: ir.Node, operator: Operator) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        for index, value in enumerate(node.inputs):
            listed = _as_list(value) if index in operator.ints else None
            args.append(listed if listed is not None else None if value is None else self.value(value))
        while args and args[-1] is None:
            args.pop()
        options = {name: self.attribute(node, attribute) for name, attribute in node.attributes.items()}
        if operator.wants_output_count:
            options["output_count"] = len(node.outputs)
        return tuple(args), options

    def attribute(self, node: ir.Node, attribute: ir.Attr) -> Any:
        if attribute.type == ir.AttributeType.TENSOR:
            return self.constant(f"{node.name}_{attribute.name}", attribute.value.numpy(), False)
        value = attribute.value
        return tuple(value) if isinstance(value, list | tuple) else value

    # -- values -------------------------------------------------------------------------------------------------
    def value(self, value: ir.Value) -> fx.Node:
        if value not in self.values:
            assert value.const_value is not None, f"{value.name} is used before it is computed"
            array = value.const_value.numpy()
            is_float = value.const_value.dtype in FLOAT_TYPES
            learns = array.size > 1 and value not in self.fixed and bool(np.isfinite(array.astype(np.float32)).all())
            trains = is_float and (learns or value.name in self.trainable)
            self.values[value] = self.constant(value.name or "", value.const_value, trains)
        return self.values[value]

    def constant(self, name: str, data: Any, trains: bool) -> fx.Node:
        """A parameter or buffer; read where the graph needs it first."""
        attribute = self.unique(name)
        tensor = _tensor(data)
        if trains:
            self.root.register_parameter(attribute, torch.nn.Parameter(tensor))
        else:
            self.root.register_buffer(attribute, tensor)
        self.names[attribute] = name
        return self.graph.get_attr(attribute)

    def unique(self, name: str) -> str:
        base = identifier(name)
        found, count = base, 1
        while found in self.taken or hasattr(torch.nn.Module, found):
            count += 1
            found = f"{base}_{count}"
        self.taken.add(found)
        return found

    def _buffers(self) -> Iterable[ir.Value]:
        for node in self.source:
            operator = operator_for(node)
            for index in operator.buffers if operator else ():
                if index < len(node.inputs) and is_constant(node.inputs[index]):
                    value = node.inputs[index]
                    assert value is not None
                    yield value

    # -- branches -----------------------------------------------------------------------------------------------
    def branches(self, node: ir.Node) -> fx.Node:
        graphs = {name: node.attributes[f"{name}_branch"].as_graph() for name in ("then", "else")}
        captured = list(dict.fromkeys(value for graph in graphs.values() for value in _captured(graph)))
        modules = {name: _Builder(graph, self.trainable, captured).build(name) for name, graph in graphs.items()}
        attribute = self.unique(node.name or "If")
        self.root.add_module(attribute, Branch(modules["then"], modules["else"]))
        condition = node.inputs[0]
        assert condition is not None
        return self.graph.call_module(attribute, tuple(self.value(v) for v in (condition, *captured)))


class IrModule(fx.GraphModule):
    """A GraphModule that keeps its names when it is pickled, as it does when it is copied."""

    def __reduce__(self) -> Any:
        function, arguments = super().__reduce__()
        return _unpickle, (function, arguments, self.meta, type(self).__name__)


def _unpickle(function: Callable[..., Any], arguments: Any, meta: dict[str, Any], name: str) -> IrModule:
    module = function(*arguments)
    restored = IrModule(module, module.graph, class_name=name)
    restored.meta.update(meta)
    restored.train(module.training)
    return restored


class OperatorTracer(fx.Tracer):
    """Keeps operator functions whole when a module is traced again, which unpickling does."""

    def __init__(self) -> None:
        functions = {id(o.function): o.function for o in operators().values() if _is_own(o.function)}
        super().__init__(autowrap_functions=(_item, *functions.values()))


class Branch(torch.nn.Module):
    """If: one of two modules, chosen by the first argument; both take the others."""

    def __init__(self, then: IrModule, otherwise: IrModule) -> None:
        super().__init__()
        self.then = then
        self.otherwise = otherwise

    def forward(self, condition: Any, *values: Any) -> Any:
        return (self.then if bool(condition) else self.otherwise)(*values)


def _is_own(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).startswith("prunec.torch.operators")


def _item(values: Any, index: int) -> Any:
    return values[index]


_TUPLES = frozenset("Attention GRU LSTM RNN Split TopK".split())


def _returns_tuple(node: ir.Node) -> bool:
    return node.op_type in _TUPLES


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """Values of the outside that the graph, or a graph in it, reads; its own initializers are not among them."""
    inside: set[ir.Value] = set()
    found: list[ir.Value] = []
    for own in [graph, *graph.subgraphs()]:
        inside |= {*own.inputs, *own.initializers.values()}
        for node in own:
            inside |= set(node.outputs)
    for own in [graph, *graph.subgraphs()]:
        reads = [value for node in own for value in node.inputs if value is not None]
        found += [value for value in [*reads, *own.outputs] if value not in inside]
    return list(dict.fromkeys(found))


def _as_list(value: ir.Value | None) -> list[int] | None:
    """The integers of a short constant, else None."""
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return [int(v) for v in array.reshape(-1)] if array.dtype.kind in "iu" and array.size <= _INLINE else None


def _constant_of(node: ir.Node) -> Any:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            value = node.attributes[name].value
            if name == "value":
                return value
            return np.array(value, np.float32 if "float" in name else np.int64)
    raise PrunecError("PC040", "a constant that is no tensor of numbers", where=node.name)


def _tensor(data: Any) -> Any:
    """A copy as a torch tensor; bfloat16 by way of float32."""
    dtype = data.dtype if not isinstance(data, np.ndarray) else None
    array = data if isinstance(data, np.ndarray) else data.numpy()
    if dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def identifier(name: str) -> str:
    """A name that Python can have as an attribute."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalpha() or plain[:1] == "_" else f"_{plain}"
