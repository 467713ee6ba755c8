"""A model that is run again and again with some inputs of its nodes changed, each time from the first change on.

The model is cut in front of nodes whose changed inputs are computed; every part is one session for all questions, and
changes are made between them. What the parts behind a place read from before it is kept there for all batches, and the
place moves on with the questions: when they come in the order of the graph, they start where their changes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.array_store import ArrayStore
from prunec.backends.onnx.segment import Segment, proto_of
from prunec.graph.reads import reads

Place = tuple[str, int]
"""A node's name and the number of one of its inputs."""
Feeds = dict[str, np.ndarray]
Change = Callable[..., np.ndarray]
"""Some inputs of a node → what stands in the place of one of them."""
Store = ArrayStore[tuple[str, int]]


class Replay:
    """`places`: inputs that may change, each with the inputs of the same node that its change is made from.

    `ram_bytes`: of what is kept between parts; `session_bytes`: of weights that sessions hold at the same time.
    """

    def __init__(
        self,
        model: ir.Model,
        places: Mapping[Place, Sequence[int]],
        batches: Sequence[Feeds],
        *,
        threads: int,
        ram_bytes: int,
        session_bytes: int,
    ) -> None:
        self._model, self._batches, self._ram_bytes = model, batches, ram_bytes
        self._parts = _parts(model, places, frozenset(batches[0]), threads)
        self._live = _live(model, self._parts, frozenset(batches[0]))
        self._blocks = list(_blocks(self._parts, session_bytes))
        self._position, self._states = 0, self._first()

    def answers(self, changes: Mapping[Place, Change]) -> Iterator[list[np.ndarray]]:
        """The model's outputs with these changes, batch by batch."""
        touched = [k for k, part in enumerate(self._parts) if any(hook.place in changes for hook in part.hooks)]
        first = min(touched, default=self._position)
        if first < self._position:
            self._states.close()
            self._position, self._states = 0, self._first()
        if first > self._position:
            self._states, before = self._through(self._position, first, {}), self._states
            self._position = first
            before.close()
            for part in self._parts[:first]:
                part.segment = None
        with self._through(first, len(self._parts), changes) as states:
            for batch in range(len(self._batches)):
                yield [self._output(states, value, batch) for value in self._model.graph.outputs]

    def _output(self, states: Store, value: ir.Value, batch: int) -> np.ndarray:
        name = value.name or ""
        if name in self._live[-1]:
            return states.get((name, batch))
        assert value.const_value is not None
        return value.const_value.numpy()

    def _first(self) -> Store:
        """What is needed in front of the first part."""
        states: Store = ArrayStore(self._ram_bytes)
        for batch, feeds in enumerate(self._batches):
            for name in self._live[0]:
                states.put((name, batch), feeds[name])
        return states

    def _through(self, first: int, end: int, changes: Mapping[Place, Change]) -> Store:
        """From what is kept in front of part `first` to what is needed in front of part `end`."""
        states = self._states
        for block in self._blocks:
            numbers = range(max(block.start, first), min(block.stop, end))
            if not numbers:
                continue
            for number, part in enumerate(self._parts):
                if number not in block:
                    part.segment = None
            found: Store = ArrayStore(self._ram_bytes)
            for batch in range(len(self._batches)):
                values = {name: states.get((name, batch)) for name in self._live[numbers.start]}
                for number in numbers:
                    values.update(self._parts[number].run(values, changes))
                    for name in values.keys() - self._live[number + 1]:
                        del values[name]
                for name, array in values.items():
                    found.put((name, batch), array)
            if states is not self._states:
                states.close()
            states = found
        return states


@dataclass(frozen=True)
class _Hook:
    """An input that may change: what a change is made from, and what stands there without one."""

    place: Place
    sources: tuple[ir.Value, ...]
    value: ir.Value

    @property
    def name(self) -> str:
        return f"prunec.replay.{self.place[0]}.{self.place[1]}"


class _Part:
    """Nodes in a row. `outputs`: of what they make, what others need; set once all parts are known.

    A changed input that was a constant stays one, in a session of its own: kernels may want it that way.
    """

    def __init__(
        self, model: ir.Model, nodes: Sequence[ir.Node], hooks: Sequence[_Hook], fed: frozenset[str], threads: int
    ) -> None:
        self.model, self.nodes, self.hooks, self.threads = model, nodes, hooks, threads
        self.made = {value.name or "" for node in nodes for value in node.outputs} - {""}
        read = dict.fromkeys(value for node in nodes for value in self._reads(node) if value.name not in self.made)
        self.weights = [value for value in read if _is_weight(value, fed)]
        self.inputs = [value.name or "" for value in read if not _is_weight(value, fed)]
        self.constant = [hook for hook in hooks if _is_weight(hook.value, fed)]
        self.computed = [hook for hook in hooks if hook not in self.constant]
        sources = {value for hook in hooks for value in (*hook.sources, hook.value)}
        self.needed = {*self.inputs, *(value.name or "" for value in sources if not _is_weight(value, fed))}
        self.outputs: list[str] = []
        self.segment: Segment | None = None
        self._made_with: list[Change | None] = []

    def _reads(self, node: ir.Node) -> list[ir.Value]:
        """Without the inputs that may change."""
        hooked = {hook.place[1] for hook in self.hooks if hook.place[0] == node.name}
        own = {value for index, value in enumerate(node.inputs) if index not in hooked}
        return [value for value in reads(node) if value in own or value not in node.inputs]

    @property
    def weight_bytes(self) -> int:
        return sum(value.const_value.nbytes for value in self.weights if value.const_value is not None)

    def run(self, values: Mapping[str, np.ndarray], changes: Mapping[Place, Change]) -> Feeds:
        if not self.outputs:
            return {}
        feeds = {name: values[name] for name in self.inputs}
        feeds.update({hook.name: _seen(hook, values, changes) for hook in self.computed})
        changed = [changes.get(hook.place) for hook in self.constant]
        if self.segment is None or changed != self._made_with:
            self.segment, self._made_with = self._session(feeds, values, changes), changed
        return self.segment.run(feeds)

    def _session(self, feeds: Feeds, values: Mapping[str, np.ndarray], changes: Mapping[Place, Change]) -> Segment:
        protos = [proto_of(node) for node in self.nodes]
        places = {proto.name: proto for proto in protos}
        for hook in self.hooks:
            places[hook.place[0]].input[hook.place[1]] = hook.name
        constants = [
            ir.Value(name=hook.name, const_value=ir.tensor(_seen(hook, values, changes))) for hook in self.constant
        ]
        return Segment(self.model, protos, [*self.weights, *constants], feeds, self.outputs, self.threads)


def _seen(hook: _Hook, values: Mapping[str, np.ndarray], changes: Mapping[Place, Change]) -> np.ndarray:
    change = changes.get(hook.place)
    if change is None:
        return _value(hook.value, values)
    return np.asarray(change(*(_value(source, values) for source in hook.sources)))


def _value(value: ir.Value, values: Mapping[str, np.ndarray]) -> np.ndarray:
    if (value.name or "") in values or value.const_value is None:
        return values[value.name or ""]
    return value.const_value.numpy()


def _is_weight(value: ir.Value, fed: frozenset[str]) -> bool:
    return value.is_initializer() and value.name not in fed


def _parts(model: ir.Model, places: Mapping[Place, Sequence[int]], fed: frozenset[str], threads: int) -> list[_Part]:
    found: list[_Part] = []
    nodes: list[ir.Node] = []
    hooks: list[_Hook] = []
    made: set[ir.Value] = set()
    for node in model.graph:
        own = [_hook(node, place, sources) for place, sources in places.items() if place[0] == node.name]
        if any(value in made for hook in own for value in (*hook.sources, hook.value)):
            found.append(_Part(model, nodes, hooks, fed, threads))
            nodes, hooks, made = [], [], set()
        nodes.append(node)
        hooks += own
        made.update(node.outputs)
    return [*found, _Part(model, nodes, hooks, fed, threads)]


def _hook(node: ir.Node, place: Place, sources: Sequence[int]) -> _Hook:
    read = [node.inputs[index] for index in (*sources, place[1])]
    values = [value for value in read if value is not None]
    assert len(values) == len(read), f"{place}: an input that is not there"
    return _Hook(place, tuple(values[:-1]), values[-1])


def _live(model: ir.Model, parts: Sequence[_Part], fed: frozenset[str]) -> list[set[str]]:
    """Names that are needed from there on of what was made before, in front of each part and behind the last."""
    needed = {value.name or "" for value in model.graph.outputs}
    live = [needed]
    for part in reversed(parts):
        part.outputs = sorted(part.made & needed)
        needed = (needed - part.made) | part.needed
        live.insert(0, needed)
    made = set[str](fed)
    for names, part in zip(live, parts, strict=False):
        names &= made
        made |= part.made
    live[-1] &= made
    return live


def _blocks(parts: Sequence[_Part], limit: int) -> Iterator[range]:
    """Parts whose weights take at most `limit` bytes together."""
    first = total = 0
    for number, part in enumerate(parts):
        if number > first and total + part.weight_bytes > limit:
            yield range(first, number)
            first, total = number, 0
        total += part.weight_bytes
    yield range(first, len(parts))
