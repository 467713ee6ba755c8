"""Sparsity inside a training loop of one's own: zeros that come by a schedule and stay, whatever the optimiser does.

    sparsifier = prunec.torch.Sparsifier(model, optimizer, "2:4", "gmp", steps=1000, example_inputs=images[:2])
    for x, y in loader:                      # the loop as it was: masks are changed and applied after optimizer.step()
        ...
    done = sparsifier.finalize()
    prunec.compile(done.module, example_inputs=images[:2], plan=done.plan.save("plan.json") or "plan.json")

A plan of channels is carried out by the schedules `mask-sparsity` and `gates`: what goes is shrunk while the rest
learns to do without, and `finalize()` gives the narrower module.

The optimiser's own hook does the work, so any `torch.optim.Optimizer` serves. `state_dict()` is for checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from prunec.api.opening import Opened, open_source
from prunec.api.options import PlanOptions
from prunec.api.patterning import planned_layers, whole_plan
from prunec.diagnostics import GateError, PrunecError
from prunec.frontend.torch import load_module
from prunec.graph.shapes import constant
from prunec.passes.sparsify import prove_patterns
from prunec.patterns import parse
from prunec.plan.budget import Budget
from prunec.plan.layers import DENSE, choose_layers
from prunec.plan.plan import Plan
from prunec.torch.channels import Channels
from prunec.torch.masks import apply_masks
from prunec.torch.provenance import trace_weights
from prunec.torch.pruning import PrunedModule, prune
from prunec.torch.schedules import create
from prunec.torch.schedules.base import Schedule, State, Training
from prunec.torch.views import Masks, Views


class Sparsifier:
    """Puts a pattern into `module` while `optimiser` trains it.

    `what`: the name of a pattern with its level in `sparsity`, or a plan (or its file) that has one and cuts nothing.
    `schedule`: gmp, granet, imp, ast, pdp, one-shot, over `steps` steps of the optimiser; or a `Schedule` of one's own.
    For mask-sparsity and gates `what` is a plan that cuts channels and puts zeros nowhere.
    `masks` are those that hold now, by parameter. Stem, depthwise convolutions and head stay dense unless `include`
    names them, by the nodes of the traced module, as in `prunec.compile`.

    Raises:
        PrunecError PC030 to PC034: the module; PC203: no such schedule; PC215, PC224, PC225: the pattern; PC204, PC205:
        the plan; PC044: a layer whose zeros are in no parameter; PC045: the plan cuts channels and the schedule does
        not, or the other way round.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        what: str | Path | Plan,
        schedule: str | Schedule = "gmp",
        *,
        example_inputs: Any,
        steps: int | None = None,
        sparsity: float | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self.module, self.optimiser, self._example = module, optimiser, example_inputs
        self.schedule = _schedule(schedule, steps)
        opened = open_source(load_module(module, example_inputs))
        traced = trace_weights(opened.source.model)
        if self.schedule.cuts:
            self._plan = _cutting(what, opened)
            channels = Channels(module, traced, opened, self._plan)
            self._training = Training(Views(module, traced, ()), optimiser, _ones(channels.parameters()), channels)
        else:
            self._plan = _planned(what, opened, sparsity, include, exclude)
            views = Views(module, traced, self._plan.layers)
            self._training = Training(views, optimiser, _ones(views.parameters()))
        self.step = 0
        self.schedule.start(self._training)
        apply_masks(module, self.masks)
        self._handles = (
            optimiser.register_step_pre_hook(lambda *_: self.schedule.before_step(self._training)),
            optimiser.register_step_post_hook(lambda *_: self._after_step()),
        )

    @property
    def masks(self) -> Masks:
        return self._training.masks

    @property
    def sparsity(self) -> float:
        """Share of the planned weights that is masked now."""
        kept = [(int(mask.sum()), int(mask.numel())) for mask in self.masks.values()]
        return 1 - sum(count for count, _ in kept) / sum(total for _, total in kept)

    def _after_step(self) -> None:
        self.step += 1
        self.schedule.after_step(self.step, self._training)
        apply_masks(self.module, self.masks)

    def state_dict(self) -> State:
        """For a checkpoint, beside the module's and the optimiser's own."""
        own = {"step": self.step, "masks": self.masks, "schedule": self.schedule.state_dict()}
        return own if self._training.cut is None else {**own, "plan": self._training.cut.plan.to_bytes()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a checkpoint: of a sparsifier that was made the same way.

        Raises:
            PrunecError PC042: it is of another module or pattern.
        """
        shapes = {name: tuple(mask.shape) for name, mask in self.masks.items()}
        if {name: tuple(mask.shape) for name, mask in state["masks"].items()} != shapes:
            hint = "make the sparsifier with the module, the pattern and the layers that the state was saved with"
            raise PrunecError("PC042", "the masks do not fit the module", where="load_state_dict", hint=hint)
        self.step = state["step"]
        self._training.masks = {name: mask.to(self.masks[name].device) for name, mask in state["masks"].items()}
        if self._training.cut is not None:
            self._training.cut.plan = Plan.model_validate_json(state["plan"])
        self.schedule.load_state_dict(state["schedule"])
        apply_masks(self.module, self.masks)

    def finalize(self) -> PrunedModule:
        """The module with its zeros, and the plan that any target compiles it by; or the narrower module.

        The optimiser is let go.

        Raises:
            PrunecError PC046: the schedule has not ended; GateError PC523: somebody has written over the zeros.
        """
        if self.step < self.schedule.steps:
            message = f"the schedule is at step {self.step} of {self.schedule.steps}"
            raise PrunecError("PC046", message, where="finalize", hint="train on, or give it fewer steps")
        for handle in self._handles:
            handle.remove()
        if self._training.cut is not None:
            return self._cut(self._training.cut)
        mode = self.module.training
        opened = open_source(load_module(self.module.eval(), self._example))
        self.module.train(mode)
        plan = self._plan.model_copy(update={"source_sha256": opened.source.sha256})
        _without_signs(opened.canonical)
        for node, proof in prove_patterns(opened.canonical, planned_layers(plan)).items():
            if not proof.passed:
                message = f"{proof.valid} of {proof.units} units of a weight are {proof.pattern}"
                raise GateError("PC523", message, where=node, hint="nothing but the optimiser may write to the weights")
        return PrunedModule(self.module, "module", plan, opened.canonical, opened.warnings, masks=dict(self.masks))

    def _cut(self, channels: Channels) -> PrunedModule:
        """A copy of the module without the channels, which do nothing any more: as `prunec.torch.prune` has it."""
        parameters = channels.parameters()
        for name, mask in channels.masks().items():
            if bool((parameters[name].detach()[~mask] != 0).any()):
                message = "channels that were to go are not zero"
                raise GateError("PC523", message, where=name, hint="nothing but the optimiser may write to the weights")
        source = load_module(self.module, self._example)
        return prune(self.module, self._example, plan=channels.plan.model_copy(update={"source_sha256": source.sha256}))


def _ones(parameters: Mapping[str, torch.nn.Parameter]) -> Masks:
    return {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in parameters.items()}


def _without_signs(model: ir.Model) -> None:
    """A zero that a folded norm multiplied by a negative scale is +0.0 again: what was trained has no others."""
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype.kind == "f" and (np.signbit(array) & (array == 0)).any():
            value.const_value = ir.Tensor(array + array.dtype.type(0), name=value.name)


def _schedule(schedule: str | Schedule, steps: int | None) -> Schedule:
    if isinstance(schedule, Schedule):
        return schedule
    if steps is None:
        hint = "steps=1000: as many calls of optimizer.step() as the training has"
        raise PrunecError("PC208", f"the schedule {schedule} has to know how long it is", where="steps", hint=hint)
    return create(schedule, steps)


def _given(what: str | Path | Plan, opened: Opened) -> Plan | None:
    """The plan, checked; None where `what` is the name of a pattern."""
    from prunec.api.stages import checked

    if isinstance(what, Plan | Path) or Path(what).suffix == ".json":
        return checked(opened, what if isinstance(what, Plan) else Plan.load(what))
    return None


def _cutting(what: str | Path | Plan, opened: Opened) -> Plan:
    """A plan of channels, in which nothing is refitted: training did that."""
    plan = _given(what, opened)
    others = plan is not None and (plan.depth or plan.head_width or plan.permutation or plan.layers)
    if plan is None or others or not any(group.cut for group in plan.groups):
        message = "the schedule takes channels away, and needs a plan that cuts some and does nothing else"
        hint = "pass prunec.plan(module, example_inputs=..., flops=0.5).plan"
        raise PrunecError("PC045", message, where="plan", hint=hint)
    return plan.model_copy(update={"compensation": "none", "recovery": None})


def _planned(
    what: str | Path | Plan, opened: Opened, sparsity: float | None, include: Sequence[str], exclude: Sequence[str]
) -> Plan:
    """A plan of zeros, in which nothing is solved or refitted: training did that."""
    plan = _given(what, opened)
    if plan is not None:
        if plan.depth or plan.head_width or plan.permutation or any(group.cut for group in plan.groups):
            message = "the plan cuts or reorders channels, and this schedule keeps the module's shape"
            hint = "take mask-sparsity or gates, or cut first with prunec.prune(module, ..., plan=...)"
            raise PrunecError("PC045", message, where="plan", hint=hint)
    else:
        pattern = parse(str(what))
        level = pattern.level(sparsity)
        layers = choose_layers(opened.canonical, pattern, level, include, exclude)
        if all(layer.pattern == DENSE for layer in layers):
            why = "; ".join(f"{layer.node}: {layer.why}" for layer in layers[:3])
            raise PrunecError("PC225", f"no layer is to be {pattern}: {why}", where="pattern", hint="try unstructured")
        options = PlanOptions(pattern=pattern.name, include=include, exclude=exclude)
        plan = whole_plan(opened, options, Budget.of("sparsity", level))
        plan = plan.model_copy(update={"pattern": pattern.name, "layers": layers})
    return plan.model_copy(update={"solver": "magnitude", "compensation": "none", "recovery": None})
