"""Channels of a plan as elements of a module's parameters, for schedules that shrink channels in training.

An element belongs to a channel if it goes with it: rows of what makes the channel, columns of what reads it, norms and
biases on the way. Numbers are those of the classes of channels in the unfolded canonical model (`provenance`), tied to
the groups of the folded one, which plans are about, as in `parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from prunec.api.opening import Opened
from prunec.criteria.base import Needs, ScoreContext
from prunec.graph import Group, analyse
from prunec.plan.plan import Plan
from prunec.plan.planner import Planner
from prunec.torch.parameters import carry_over, shared_classes
from prunec.torch.provenance import Provenance

Masks = dict[str, torch.Tensor]


class _Worth:
    """What training found channels to be worth, in the place of a criterion."""

    name, data_free = "none", True
    needs: frozenset[Needs] = frozenset()

    def __init__(self, scores: Mapping[str, np.ndarray]) -> None:
        self._scores = scores

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        return self._scores[group.id]


class Channels:
    """What a plan cuts, in a module. `names`: the parameters that channels of its groups have elements of.

    `plan` may be decided anew (`decide`).
    """

    def __init__(self, module: torch.nn.Module, traced: Provenance, opened: Opened, plan: Plan) -> None:
        self.module, self.traced, self.plan = module, traced, plan
        self._canonical, self._folded = opened.canonical, opened.analysis
        self._analysis = analyse(traced.model)
        free = {group.id for group in plan.groups if group.why != "excluded"}
        self._groups = [group for group in opened.analysis.groups if group.id in free]
        everything = self._gone({group.id: np.zeros(group.size, bool) for group in self._groups})
        self.names = traced.parameters_in([np.flatnonzero(everything)])
        self._masked: tuple[Plan, Masks] | None = None

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        own = dict(self.module.named_parameters())
        return {name: own[name] for name in self.names if name in own}

    def masks(self) -> Masks:
        """False for every element that goes with a channel the plan cuts; every step asks, so they are kept."""
        if self._masked is None or self._masked[0] is not self.plan:
            self._masked = self.plan, self._split(~self._gone(self.plan.keeps()))
        return self._masked[1]

    def columns(self) -> Masks:
        """int64: the class of channels that a weight's element multiplies, −1 where that cannot be cut.

        An element that several layers share with different channels has none.
        """
        free = np.zeros(self._analysis.channel_count, bool)
        free[~self._alive({group.id: np.zeros(group.size, bool) for group in self._groups})] = True
        found = np.full(self.traced.size, -1, np.int64)
        nodes = {node.name or "": node for node in self.traced.model.graph}
        for consumer in self._analysis.consumers:
            index, axis = consumer.weight_index, consumer.weight_axis
            value = None if index is None else nodes[consumer.node].inputs[index]
            origin = None if value is None else self.traced.origins.get(value.name or "")
            classes = self._analysis.use_axes.get((consumer.node, index or 0), ())
            own = None if axis is None or axis >= len(classes) else classes[axis]
            if origin is None or own is None or axis is None:
                continue
            wanted = np.where(free[own], own, -1).reshape([-1 if i == axis else 1 for i in range(origin.ndim)])
            wanted = np.broadcast_to(wanted, origin.shape)
            before = found[origin]
            found[origin] = np.where((before == -1) | (before == wanted), wanted, -1)
        return self._split(found)

    @property
    def count(self) -> int:
        """Classes of channels, numbered as in `columns`."""
        return self._analysis.channel_count

    def decide(self, worth: np.ndarray) -> None:
        """Cut the channels that are worth least, under the plan's budget; `worth` [count] of every class.

        Raises:
            PrunecError PC207: the budget cannot be met.
        """
        plan = self.plan
        context = ScoreContext(self._canonical, self._folded)
        planner = Planner(
            self._canonical, self._folded, _Worth(self._by_group(worth)), context, target=plan.target, scope="global",
            round_to=plan.rounding, include=plan.include, exclude=plan.exclude, floor=plan.floor, normalise="none",
            seed=plan.seed, source_sha256=plan.source_sha256,
        )  # fmt: skip
        found = planner.least_cut(plan.budget)
        self.plan = plan.model_copy(
            update={"groups": found.groups, "realised": found.realised, "scope": "global", "criterion": "none"}
        )

    def _by_group(self, worth: np.ndarray) -> dict[str, np.ndarray]:
        """The mean over the places that have a class on its own, for every channel of a group."""
        found = {}
        for group in self._groups:
            total, places = np.zeros(group.size), np.zeros(group.size)
            local = np.full(self._folded.channel_count, -1)
            local[group.channels] = np.arange(group.size)
            for ours, theirs in shared_classes(self._analysis, self._folded):
                index = local[theirs]
                np.add.at(total, index[index >= 0], worth[ours][index >= 0])
                np.add.at(places, index[index >= 0], 1)
            found[group.id] = total / np.maximum(places, 1)
        return found

    def _alive(self, keeps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Classes of the unfolded model; unlike a cut, everything may go."""
        alive = np.ones(self._folded.channel_count, bool)
        for group in self._groups:
            alive[group.channels] = keeps[group.id]
        return carry_over(self._analysis, self._folded, alive)

    def _gone(self, keeps: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [elements of all parameters]: those that no use keeps."""
        alive = self._alive(keeps)
        lives, dies = np.zeros(self.traced.size, bool), np.zeros(self.traced.size, bool)
        for node in self.traced.model.graph:
            for index, value in enumerate(node.inputs):
                origin = None if value is None else self.traced.origins.get(value.name or "")
                if origin is None:
                    continue
                stays = np.ones(origin.shape, bool)
                for axis, ids in enumerate(self._analysis.use_axes.get((node.name or "", index), ())):
                    if ids is not None:
                        stays &= alive[ids].reshape([-1 if i == axis else 1 for i in range(origin.ndim)])
                lives[origin[stays]] = True
                dies[origin[~stays]] = True
        return dies & ~lives

    def _split(self, flat: np.ndarray) -> Masks:
        found: Masks = {}
        for name, parameter in self.parameters().items():
            start, shape = self.traced.spans[name]
            own = flat[start : start + math.prod(shape)].reshape(shape)
            found[name] = torch.from_numpy(own.copy()).to(parameter.device)
        return found
