"""Values inside a model, some names at a time, with every node run once per batch.

The model is cut behind the last value of each set of names; what later parts read is kept in an `ArrayStore`. So the
memory is that of one set, however many there are, for the cost of one forward pass. Where values are sequences, which
no file holds, every set takes a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.array_store import ArrayStore
from prunec.backends.onnx.segment import Segment, proto_of
from prunec.backends.onnx.session import make_session, run
from prunec.graph.reads import reads

Feeds = dict[str, np.ndarray]
Batches = Callable[[], Iterator[Feeds]]


def made_at(model: ir.Model) -> dict[str, int]:
    """The place in the graph of the node that makes each value; −1 for inputs and constants."""
    places = dict.fromkeys(model.graph.initializers, -1)
    places.update({str(value.name): -1 for value in model.graph.inputs})
    places.update({str(value.name): i for i, node in enumerate(model.graph) for value in node.outputs})
    return places


def sweep(
    model: ir.Model,
    wanted: Sequence[Collection[str]],
    batches: Batches,
    *,
    threads: int,
    ram_bytes: int,
    optimise: bool = True,
) -> Iterator[tuple[int, Feeds, Feeds]]:
    """(k, feeds, values of `wanted[k]` by name) of every batch, the sets in their order, which is that of the graph.

    `ram_bytes`: of what is kept between the parts, before it goes to files. `optimise`: as in `make_session`.
    """
    if len(wanted) == 1 or _has_sequences(model):
        for k, names in enumerate(wanted):
            session = make_session(model, threads=threads, outputs=sorted(names), optimise=optimise)
            for feeds in batches():
                yield k, feeds, run(session, feeds)
        return
    parts = _parts(model, wanted)
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    constants = {name: t.numpy() for names in wanted for name in names if (t := tensors.get(name)) is not None}
    with ArrayStore[tuple[str, int]](ram_bytes) as store:
        for k, nodes in enumerate(parts):
            needed_later = _needed(parts[k + 1 :], wanted[k + 1 :])
            part = _Part(model, nodes, set(wanted[k]) | needed_later, threads, optimise)
            for number, feeds in enumerate(batches()):
                found = part.run(feeds, store, number)
                for name in needed_later & found.keys():
                    store.put((name, number), found[name])
                found.update({name: constants[name] for name in wanted[k] if name in constants and name not in feeds})
                yield k, feeds, {name: _get(name, found, feeds, store, number) for name in wanted[k]}
                found.clear()
                for name in [key[0] for key in store if key[1] == number and key[0] not in needed_later]:
                    store.drop((name, number))


def outputs(
    model: ir.Model, batches: Batches, *, threads: int, ram_bytes: int, optimise: bool = True
) -> Iterator[Feeds]:
    """The model's outputs on every batch, by name, with no more weights at a time than `ram_bytes` or one node has.

    A session of a whole model holds up to four times its weights while it is made.
    """
    names = [str(value.name) for value in model.graph.outputs]
    wanted: list[set[str]] = [*({name} for name in _by_weights(model, ram_bytes)), set(names)]
    for k, _, found in sweep(model, wanted, batches, threads=threads, ram_bytes=ram_bytes, optimise=optimise):
        if k == len(wanted) - 1:
            yield {name: found[name] for name in names}


def _by_weights(model: ir.Model, limit: int) -> Iterator[str]:
    """Values in front of which the nodes read about `limit` bytes of weights."""
    total, last = 0, ""
    for node in model.graph:
        constants = (value.const_value for value in reads(node))
        own = sum(tensor.nbytes for tensor in constants if tensor is not None)
        if last and total + own > limit:
            yield last
            total = 0
        total += own
        last = next((value.name for value in node.outputs if value.name), last)


def _has_sequences(model: ir.Model) -> bool:
    values = (value for node in model.graph for value in node.outputs)
    return any(value.type is not None and not isinstance(value.type, ir.TensorType) for value in values)


class _Part:
    """Some nodes in a row, and those of their values that are asked for."""

    def __init__(
        self, model: ir.Model, nodes: Sequence[ir.Node], asked: Collection[str], threads: int, optimise: bool
    ) -> None:
        self.model, self.nodes, self.threads, self.optimise = model, nodes, threads, optimise
        made = {value.name or "" for node in nodes for value in node.outputs}
        self.outputs = sorted(made & set(asked))
        self.read = list(dict.fromkeys(v for node in nodes for v in reads(node) if v.name not in made))
        self.segment: Segment | None = None

    def run(self, feeds: Mapping[str, np.ndarray], store: ArrayStore[tuple[str, int]], number: int) -> Feeds:
        if not self.outputs:
            return {}
        weights = [value for value in self.read if value.is_initializer() and value.name not in feeds]
        names = [value.name or "" for value in self.read if value not in weights]
        own = {name: _get(name, {}, feeds, store, number) for name in names}
        if self.segment is None:
            protos = [proto_of(node) for node in self.nodes]
            self.segment = Segment(self.model, protos, weights, own, self.outputs, self.threads, optimise=self.optimise)
        return self.segment.run(own)


def _get(
    name: str, found: Feeds, feeds: Mapping[str, np.ndarray], store: ArrayStore[tuple[str, int]], number: int
) -> np.ndarray:
    array = found.get(name, feeds.get(name))
    return store.get((name, number)) if array is None else array


def _parts(model: ir.Model, wanted: Sequence[Collection[str]]) -> list[list[ir.Node]]:
    """The nodes that each set needs beyond the sets before it, in graph order."""
    nodes, places = list(model.graph), made_at(model)
    live = set[ir.Node]()
    waiting = [nodes[places[name]] for names in wanted for name in names if places[name] >= 0]
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += [nodes[i] for value in reads(node) if (i := places.get(value.name or "", -1)) >= 0]
    parts, first = list[list[ir.Node]](), 0
    for names in wanted:
        end = max([first, *(places[name] + 1 for name in names)])
        parts.append([node for node in nodes[first:end] if node in live])
        first = end
    return parts


def _needed(parts: Sequence[Sequence[ir.Node]], wanted: Sequence[Collection[str]]) -> set[str]:
    """Names that nodes of `parts` read or that are asked for."""
    found = {value.name or "" for nodes in parts for node in nodes for value in reads(node)}
    return found.union(*wanted)
