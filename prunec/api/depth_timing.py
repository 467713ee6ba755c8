"""Whole blocks among the options of a budget of time, beside the widths: `--structures depth,channels`.

A block is a cell with two rungs: it stays, or it goes for what the outputs lose without it alone. The time of a model
without some blocks is that of the layers that are left, learnt from whole models of which some lack blocks. Losses are
added up as those of widths are; what the choice really takes and loses is found out on its graph, as for any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path as File

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.staged_planning import wanted_blocks
from prunec.api.stages import realised_shares, stages_of, tidied
from prunec.api.timed import Cell, Point, Rungs
from prunec.api.timing import TimedWidths
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis, analyse
from prunec.graph.branches import Block, live_nodes
from prunec.measure.shares import Candidate
from prunec.passes.remove_blocks import remove_blocks
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.cost_model import CostModel
from prunec.plan.fingerprint import fingerprint
from prunec.plan.plan import BlockPlan, Plan
from prunec.plan.planner import Planner, entry
from prunec.statistics.block_errors import BlockErrors
from prunec.statistics.output_errors import sample_count


class TimedDepth(TimedWidths):
    """Widths of what `planner` can cut, and the blocks that may go; a choice has the rungs of the blocks at its end.

    Raises PrunecError PC218 where no block may go, PC230 for other scopes than "loss", and what `TimedWidths` raises.
    """

    def __init__(
        self,
        opened: Opened,
        planner: Planner,
        dense: File,
        calibration: Calibration,
        options: PlanOptions,
        progress: Progress,
    ) -> None:
        if planner.scope != "loss":
            message = f"scope {planner.scope!r} does not say what a block is worth beside channels"
            raise PrunecError("PC230", message, where="--structures depth,channels", hint="leave --scope out")
        model = opened.canonical
        found = wanted_blocks(model, options)
        samples = sample_count(model, calibration, len(found))
        errors = BlockErrors(model, found, calibration, samples, threads=options.threads)
        self.blocks: list[Block] = []
        self._alone: list[float] = []
        for number, block in enumerate(found):
            progress("measuring blocks", number, len(found))
            error = errors.error([block])
            if math.isfinite(error):
                self.blocks.append(block)
                self._alone.append(error)
        progress("measuring blocks", len(found), len(found))
        self._reduced: dict[tuple[str, ...], tuple[ir.Model, Analysis]] = {}
        super().__init__(opened, planner, dense, calibration, options, progress)

    @property
    def bottom(self) -> Rungs:
        return (*super().bottom, *(1 for _ in self.blocks))

    @property
    def other_ways(self) -> tuple[str, ...]:
        """None: other scopes do not say what a block is worth beside channels."""
        return ()

    @property
    def at_its_end(self) -> str:
        return f"without its {len(self.blocks)} blocks, and {super().at_its_end}"

    @cached_property
    def costs(self) -> DepthCosts:
        return DepthCosts(self._planner.costs, self._opened.canonical, self.blocks)

    def state(self, rungs: Sequence[int]) -> np.ndarray:
        """bool: the classes that are alive, then the blocks that stay."""
        return np.concatenate([self.alive(rungs[: len(self.ladders)]), ~self._gone(rungs)])

    def cell(self, number: int, rung: int) -> Cell:
        if number < len(self.ladders):
            return super().cell(number, rung)
        block = number - len(self.ladders)
        return Cell(self.blocks[block].name, 1 - rung, 1, rung * self._alone[block])

    def one_shot(self, rungs: Sequence[int]) -> ir.Model:
        removed = self._removed(rungs)
        if not removed:
            return super().one_shot(rungs[: len(self.ladders)])
        model, analysis, alive = self._without(removed, rungs)
        return tidied(slice_channels(model, analysis, alive))

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        plan = super().describe(rungs[: len(self.ladders)], budget)
        removed = self._removed(rungs)
        if not removed:
            return plan
        model, analysis, alive = self._without(removed, rungs)
        groups = []
        for group in analysis.groups:
            if group.pinned is None:
                cut = np.flatnonzero(~alive[group.channels]).tolist()
                groups.append(entry(group, cut, len(cut) / group.size, "loss"))
        errors = dict(zip([block.name for block in self.blocks], self._alone, strict=True))
        depth = tuple(BlockPlan(name=b.name, kind=b.kind, error=round(errors[b.name], 6)) for b in removed)
        plan = plan.model_copy(
            update={"structures": ("depth", "channels"), "depth": depth, "groups": tuple(groups),
                    "fingerprint": fingerprint(model, analysis)}
        )  # fmt: skip
        return plan.model_copy(update={"realised": realised_shares(self._opened, stages_of(self._opened, plan))})

    def plan(self, point: Point, budget: Budget) -> Plan:
        """As of widths; reasons are under the names that groups have without the blocks, and of those that are left."""
        made = super().plan(point, budget)
        if not made.depth:
            return made
        now = {tensor: group.id for group in made.groups for tensor in group.producers}
        tensors = {ladder.group.id: {member.tensor for member in ladder.group.producers()} for ladder in self.ladders}
        found = []
        for choice in made.choices:
            own = tensors.get(choice.name)
            left = [] if own is None else [now[tensor] for tensor in sorted(own & now.keys())]
            if own is None or left:
                found.append(choice if own is None else choice.model_copy(update={"name": left[0]}))
        return made.model_copy(update={"choices": tuple(found)})

    def candidate(self, rungs: Rungs) -> Candidate:
        key, write = super().candidate(rungs)
        names = [block.name for block in self._removed(rungs)]
        return (key if not names else f"{key} without {json.dumps(names)}"), write

    def extra_curves(self) -> list[np.ndarray]:
        return [np.array([0.0, error]) for error in self._alone]

    def _gone(self, rungs: Sequence[int]) -> np.ndarray:
        return np.array(rungs[len(self.ladders) :], bool)

    def _removed(self, rungs: Sequence[int]) -> list[Block]:
        return [block for block, is_gone in zip(self.blocks, self._gone(rungs), strict=True) if is_gone]

    def _without(self, removed: Sequence[Block], rungs: Sequence[int]) -> tuple[ir.Model, Analysis, np.ndarray]:
        """The canonical model without the blocks, its groups, and what of them is alive."""
        key = tuple(block.name for block in removed)
        if key not in self._reduced:
            model = remove_blocks(self._opened.canonical, removed)
            self._reduced = {key: (model, analyse(model))}  # one at a time: choices that follow rarely share it
        model, analysis = self._reduced[key]
        alive = self.alive(rungs[: len(self.ladders)])
        return model, analysis, carried(self._opened.analysis, alive, analysis)


class DepthCosts:
    """Costs of the layers that are left: of `costs`, those that some output needs without the blocks that went.

    A state is bool: the classes that are alive, then the `blocks` that stay.
    """

    def __init__(self, costs: CostModel, model: ir.Model, blocks: Sequence[Block]) -> None:
        self._costs, self._model, self._blocks = costs, model, blocks
        self._live: dict[bytes, np.ndarray] = {}

    def layer_macs(self, state: np.ndarray, multiple: int = 1) -> np.ndarray:
        """As `CostModel.layer_macs`."""
        classes, live = self._parts(state)
        return np.where(live, self._costs.layer_macs(classes, multiple), 0.0)

    def layer_elements(self, state: np.ndarray) -> np.ndarray:
        """As `CostModel.layer_elements`."""
        classes, live = self._parts(state)
        return np.where(live, self._costs.layer_elements(classes), 0.0)

    def _parts(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, stays = np.split(state, [len(state) - len(self._blocks)])
        key = stays.tobytes()
        if key not in self._live:
            removed = [block for block, stay in zip(self._blocks, stays, strict=True) if not stay]
            left = set(live_nodes(self._model, removed))
            self._live[key] = np.array([node in left for node in self._model.graph])
        return classes, self._live[key]


def carried(before: Analysis, alive: np.ndarray, after: Analysis) -> np.ndarray:
    """What is alive (bool per class of `before`) in the classes of `after`, which is about less of the same model.

    Tensors that both have say which class is which. Channels that may not be cut any more stay.
    """
    found = np.ones(after.channel_count, bool)
    values = ((before.value_axes.get(name, ()), axes) for name, axes in after.value_axes.items())
    uses = ((before.use_axes.get(place, ()), axes) for place, axes in after.use_axes.items())
    for old, new in (*values, *uses):
        for was, now in zip(old, new, strict=False):
            if was is not None and now is not None and len(was) == len(now):
                found[now[~alive[was]]] = False
    for group in after.groups:
        if group.pinned is not None:
            found[group.channels] = True
    return found
