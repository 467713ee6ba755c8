"""`--steps`: prune a little, train what is left against the dense model, prune again.

How much is gone after round k of n follows the cubic schedule of gradual pruning, 1 − (1 − k/n)³ of the final amount.
What goes in a round is decided on what the round before left, and its layers are refitted to that; training is always
against the dense model. The last round gets two shares of the minutes, the others one each.

Channels of the plan are those of the dense model, whichever round they went in, so that the cut is one and is proved as
one. A replay cuts and trains as the plan says of every round and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.patterning import channel_options, sparsifier, with_layers
from prunec.api.progress import Progress, counted
from prunec.api.recovering import (
    JudgeTraining,
    Recovery,
    as_round,
    interrupted,
    joined,
    recovered,
    unless_lower,
)
from prunec.api.refitting import refit
from prunec.api.scoring import scored
from prunec.api.stages import Stage, cut
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis, analyse
from prunec.passes.compensate import Compensated, Options
from prunec.passes.sparsify import Sparsifier
from prunec.patterns.on_the_way import on_the_way
from prunec.plan.budget import Budget
from prunec.plan.layers import DENSE
from prunec.plan.plan import GroupPlan, LayerPlan, Plan
from prunec.plan.recovery import NO_STEPS, RecoveryPlan, RecoveryRun, RoundLayer, RoundPlan
from prunec.plan.replay import realised_by
from prunec.plan.shares import DIGITS


class Rounds:
    """All rounds of one compile. `plan` is what was decided so far, in the dense model's channels.

    `model` is what the last round left, `refitted` and `solver` what it did to its layers. What `judge` finds lower
    after the training of a round than before it is undone; a replay has decided that already.
    """

    def __init__(
        self,
        opened: Opened,
        plan: Plan,
        calibration: Calibration,
        options: PlanOptions,
        progress: Progress,
        judge: JudgeTraining | None = None,
    ) -> None:
        assert plan.recovery is not None
        self.opened, self.final, self.calibration, self.options = opened, plan, calibration, options
        self.asked, self.progress = plan.recovery, progress
        self.is_replay = bool(self.asked.runs)
        self.judge = None if self.is_replay else judge
        self.last = len(self.asked.rounds) + 1 if self.is_replay else self.asked.steps
        self.model, self.analysis = opened.canonical, opened.analysis
        self.alive = np.ones(opened.analysis.channel_count, bool)
        self.plan, self.done = plan, list[RoundPlan]()
        self.stage: Stage | None = None
        self.refitted: Compensated | None = None
        self.solver: Sparsifier | None = None
        self.recovery: Recovery | None = None

    def until_the_last_cut(self) -> Plan:
        """Every round but the training of the last; the plan as it will be but for how that one is trained."""
        if self.is_replay:
            self._check_rounds()
        for number in range(1, self.last):
            self._go(number)
            self._train(number)
            if self._was_interrupted() and not self.is_replay:
                break
        self._go(self.last)
        return self.plan

    def finished(self) -> tuple[Plan, ir.Model, Compensated | None, Sparsifier | None, Recovery]:
        """Plan and model, what the last round did to its layers, and the training of all rounds."""
        self._train(self.last)
        assert self.recovery is not None
        return self.plan, self.model, self.refitted, self.solver, self.recovery

    def _was_interrupted(self) -> bool:
        return self.recovery is not None and interrupted(self.recovery)

    def _go(self, number: int) -> None:
        """Cut and refit; the weights are those that the round before left."""
        before = replace(self.opened, canonical=self.model, analysis=self.analysis)
        planned = self._replayed(number) if self.is_replay else self._decided(before, number)
        alive = self.opened.analysis.alive(planned.keeps())
        here = _here(self.opened.analysis, self.alive, self.analysis, alive)
        stage = cut("channels", self.model, self.analysis, here)
        if not self.is_replay:
            planned = self._with_layers(planned, stage.after, number)
        self.alive, self.plan = alive, planned
        self.solver = sparsifier(planned, stage.after)
        self.refitted, self.stage, self.model = None, stage, stage.after

    def _check_rounds(self) -> None:
        """Before anything is trained. PC204: a round cuts what a later one keeps, or a group that is not there."""
        left = self.alive
        for number in range(1, self.last + 1):
            alive = self.opened.analysis.alive(self._replayed(number).keeps())
            if (alive & ~left).any():
                message = f"round {number - 1} cuts channels that are there after it"
                raise PrunecError(
                    "PC204", message, where="recovery", hint="undo the edit: what a round cuts stays gone"
                )
            left = alive

    def _decided(self, before: Opened, number: int) -> Plan:
        """The cut of a round, along the cubic schedule, scored on what the round before left."""
        plan, options = self.final, self.options
        if not any(group.cut for group in plan.groups):
            return plan
        pattern = options.sparse_pattern()
        asked = options if pattern is None else channel_options(options, pattern)
        self.progress(f"step {number} of {self.last}: deciding what goes", 0, 0)
        planner = scored(
            before, before.canonical, before.analysis, self.calibration, asked, self.progress,
            baseline=None if number == 1 else self.opened.canonical,
        )  # fmt: skip
        found = planner.least_cut(_budget(plan.budget, share_at(number, self.last)), is_last=number == self.last)
        here = before.analysis.alive(found.keeps())
        alive = _there(self.opened.analysis, self.alive, before.analysis, here)
        return with_groups(plan, self.opened, alive)

    def _with_layers(self, plan: Plan, model: ir.Model, number: int) -> Plan:
        pattern = self.options.sparse_pattern()
        if pattern is None:
            return plan
        bare = plan.model_copy(update={"layers": (), "allocation": None, "losses": None, "level": None})
        level = pattern.mean_level(self.options.sparsity)
        target = on_the_way(pattern, level, share_at(number, self.last))
        if target is None:
            return bare
        own = replace(self.options, sparsity=self.options.sparsity if number == self.last else target[1])
        return with_layers(bare, model, own, target[0], self.calibration, self.progress)[0]

    def _replayed(self, number: int) -> Plan:
        if number == self.last:
            return self.final
        found = self.asked.rounds[number - 1]
        known = {group.id: group for group in self.final.groups}
        if strange := [name for name in found.cut if name not in known]:
            message = f"a round cuts {strange[0]}, a group that the plan does not have"
            raise PrunecError("PC204", message, where="recovery", hint="undo the edit")
        groups = tuple(_entry(group, found.cut.get(group.id, ())) for group in self.final.groups)
        layers = tuple(LayerPlan(**layer.model_dump(), why="on the way") for layer in found.layers)
        return self.final.model_copy(update={"groups": groups, "layers": layers})

    def _train(self, number: int) -> None:
        assert self.stage is not None
        method = self.options.chosen_recipe().compensation
        if self.solver is not None or (method != "none" and not self.stage.alive.all()):
            own = Options(method=method, seed=self.options.seed, threads=self.options.threads)
            told = counted(self.progress, f"step {number} of {self.last}: compensating")
            stages, cache = [self.stage], self.options.cache
            self.refitted = refit(stages, self.calibration, own, told, self.solver, cache)
            self.model = self.refitted.model
        runs = self._runs(number)
        share = (2 if number == self.last else 1) / (self.asked.steps + 1)
        soup = self.asked.soup if number == self.last else 1
        todo = RecoveryPlan(
            method=self.asked.method, minutes=self.asked.minutes * share, precision=self.asked.precision, soup=soup,
            runs=runs,
        )  # fmt: skip
        whole = [Stage("channels", self.opened.canonical, self.opened.analysis, self.alive, (), self.model)]
        name = f"step {number} of {self.last}: " if self.last > 1 else ""
        trained, found = recovered(
            whole, self.model, self.plan.model_copy(update={"recovery": todo}), self.calibration, self.options,
            self.progress, name=name,
        )  # fmt: skip
        assert found is not None
        self.model, found = unless_lower(self.model, trained, found, self.judge, name)
        if self.last > 1:
            found = as_round(found, name.removesuffix(": "))
        self.recovery = found if self.recovery is None else joined(self.recovery, found)
        if number == self.last:
            own_plan = self.asked.model_copy(update={"rounds": tuple(self.done), "runs": found.runs})
            self.plan = self.plan.model_copy(update={"recovery": own_plan})
            return
        self.done.append(_round(self.plan, found.runs))
        self.analysis = analyse(self.model)

    def _runs(self, number: int) -> tuple[RecoveryRun, ...]:
        """Those of the plan; none yet where steps are counted by the clock; no steps after Ctrl-C."""
        if self.is_replay:
            return self.asked.runs if number == self.last else self.asked.rounds[number - 1].runs
        return NO_STEPS if self._was_interrupted() else ()


def share_at(number: int, last: int) -> float:
    """Of what will be gone in the end, after round `number` (Zhu and Gupta, arXiv 1710.01878)."""
    return 1.0 if number == last else 1 - (1 - number / last) ** 3


def with_groups(plan: Plan, opened: Opened, alive: np.ndarray) -> Plan:
    """`plan`, cutting what is not `alive` in the dense model."""
    channels = {group.id: group.channels for group in opened.analysis.groups}
    groups = tuple(_entry(g, np.flatnonzero(~alive[channels[g.id]]).tolist()) for g in plan.groups)
    now = realised_by(groups, opened.canonical, opened.analysis, alive)
    return plan.model_copy(update={"groups": groups, "realised": now})


def _entry(group: GroupPlan, gone: list[int] | tuple[int, ...]) -> GroupPlan:
    share = round(len(gone) / group.size, DIGITS)
    return GroupPlan.model_validate({**group.model_dump(), "cut": tuple(gone), "requested": share})


def _budget(budget: Budget, share: float) -> Budget:
    """What is left of the budget's count after a share of it is gone."""
    goes = budget.kind in ("sparsity", "channels")
    return Budget.of(budget.kind, budget.value * share if goes else 1 - (1 - budget.value) * share)


def _round(plan: Plan, runs: tuple[RecoveryRun, ...]) -> RoundPlan:
    layers = (layer for layer in plan.layers if layer.pattern != DENSE)
    return RoundPlan(
        cut={group.id: group.cut for group in plan.groups if group.cut},
        layers=tuple(RoundLayer(**layer.model_dump(exclude={"why"})) for layer in layers),
        runs=runs,
    )


def _axes(dense: Analysis, left: np.ndarray, here: Analysis) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Classes of the dense model that are `left`, and those of what is left, axis by axis."""
    values = ((dense.value_axes.get(name, ()), axes) for name, axes in here.value_axes.items())
    uses = ((dense.use_axes.get(place, ()), axes) for place, axes in here.use_axes.items())
    for known, own in (*values, *uses):
        for theirs, ours in zip(known, own, strict=False):
            if theirs is not None and ours is not None:
                there = theirs[left[theirs]]
                if len(there) == len(ours):
                    yield there, ours


def _there(dense: Analysis, left: np.ndarray, here: Analysis, alive: np.ndarray) -> np.ndarray:
    """What is alive of the dense model's classes where `alive` are those of what was `left`."""
    found: np.ndarray = left.copy()
    for theirs, ours in _axes(dense, left, here):
        found[theirs] &= alive[ours]
    return found


def _here(dense: Analysis, left: np.ndarray, here: Analysis, alive: np.ndarray) -> np.ndarray:
    """The other way round."""
    found = np.ones(here.channel_count, bool)
    for theirs, ours in _axes(dense, left, here):
        found[ours] &= alive[theirs]
    return found
