"""`prunec.prune`: a torch module in, a smaller torch module out, ready to be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch

from prunec.api.dump import Dump
from prunec.api.opening import InputShapes, Opened, open_source
from prunec.api.options import CHANNELS, PlanOptions
from prunec.api.planning import as_planned, make, open_data, recorded
from prunec.api.progress import Progress, silent
from prunec.api.pruning import prune as cut_and_refit
from prunec.api.stages import Stage, checked, stages_of, tidied
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.calibration import Samples
from prunec.frontend.torch import load_module, split_inputs
from prunec.passes.centre_blocks import constant_name, with_constant
from prunec.passes.slice_channels import slice_channels
from prunec.plan.plan import Plan
from prunec.plan.structures import DEFAULT_STRUCTURES
from prunec.torch.from_ir import identifier, to_graph_module
from prunec.torch.in_place import agreement, cut_module
from prunec.torch.masks import graph_parameters, masks_of, own_parameters
from prunec.torch.parameters import NotInPlace, new_parameters
from prunec.torch.provenance import trace_weights
from prunec.verify.records import ExactnessRecord

TOLERANCE = 1e-5
"""Of the largest output: float32 sums in another order."""
Kind = Literal["module", "graph"]


@dataclass(frozen=True)
class PrunedModule:
    """`module`: the user's own class (`kind` "module") or a `torch.fx.GraphModule` of the pruned graph ("graph").

    `onnx` is the pruned model that both agree with; `exactness` the proof of its cut (None for `load_pruned`).
    `masks` are those of the plan's sparsity patterns, by parameter: `prunec.torch.hold_zeros` keeps them in training.
    """

    module: torch.nn.Module
    kind: Kind
    plan: Plan
    onnx: ir.Model
    warnings: tuple[Diagnostic, ...] = ()
    exactness: ExactnessRecord | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)


def prune(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    plan: Plan | str | Path | None = None,
    pattern: str = "auto",
    recipe: str | Path | None = None,
    criterion: str | None = None,
    scope: str | None = None,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    calib: Samples = None,
    samples: int | None = None,
    seed: int | None = None,
    threads: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    round_to: int | None = None,
    solver: str | None = None,
    allocation: str | None = None,
    structures: str | Sequence[str] | None = None,
    compensate: bool = True,
    dynamic_shapes: Any = None,
    input_shapes: InputShapes | None = None,
    progress: Progress = silent,
) -> PrunedModule:
    """Cut channels of `module`, which stays as it is, under one budget or by a plan.

    `pattern` ("2:4", "block:4x1", "unstructured", …) puts zeros into its layers besides, or instead: `sparsity` is then
    their level, as for `prunec.compile`.

    The result is a copy of the module with smaller parameters where that computes the same as the pruned graph in
    ONNX Runtime (to `TOLERANCE` on the example inputs), else a GraphModule of that graph; which one, and why, is in
    `kind` and `warnings`. The cut is proved as in `prunec.compile`.

    Raises:
        PrunecError PC030 to PC034: the module; PC040: neither form is possible; as `prunec.compile` for the options.
        GateError PC5xx: the proof failed.
    """
    options = PlanOptions(
        pattern=pattern, solver=solver, recipe=recipe, criterion=criterion, scope=scope, sparsity=sparsity, flops=flops,
        params=params, calib=calib, samples=samples, seed=seed or 0, threads=threads, include=include, exclude=exclude,
        round_to=round_to, structures=structures, allocation=allocation, compensation=None if compensate else "none",
        input_shapes=input_shapes,
        permute=None if pattern in CHANNELS else False,  # a module's channels keep their places
    )  # fmt: skip
    options.check()
    if plan is None:
        budget = options.required_budget()
    else:
        options.check_replay()
    progress("tracing the module", 0, 0)
    source = load_module(module, example_inputs, dynamic_shapes=dynamic_shapes, input_shapes=input_shapes)
    opened = open_source(source)
    notes: Sequence[Diagnostic] = ()
    if plan is not None:
        made = checked(opened, plan if isinstance(plan, Plan) else Plan.load(Path(plan)))
        options = as_planned(options, made, seed)
        calibration = open_data(opened, options)
        made = recorded(made, options, calibration)
    else:
        calibration = open_data(opened, options)
        made, notes = make(opened, calibration, options, budget, progress)
    with Dump(None, force=False) as stages:
        pruned = cut_and_refit(opened, made, calibration, options, stages=stages, progress=progress)
    progress("building the module", 0, 0)
    built, kind, why = rebuild(module, example_inputs, opened, made, pruned.model)
    warnings = (*opened.warnings, *calibration.warnings, *notes, *pruned.warnings, *why)
    masks = _masks(built, kind, opened, made, pruned.model)
    return PrunedModule(built, kind, made, pruned.model, warnings, pruned.exactness, masks)


def load_pruned(
    module: Any, plan: Plan | str | Path, state_dict: Any, example_inputs: Any, *, dynamic_shapes: Any = None
) -> PrunedModule:
    """The pruned module that a saved `state_dict()` belongs to, from the dense module (or its class) and the plan.

    The dense weights do not matter: `module` may be freshly initialised.

    Raises:
        PrunecError PC042: the state does not fit the pruned module; PC204, PC205: the plan does not fit the module.
    """
    dense = module if isinstance(module, torch.nn.Module) else module()
    opened = open_source(load_module(dense, example_inputs, dynamic_shapes=dynamic_shapes))
    given = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    made = checked(opened, given.model_copy(update={"source_sha256": opened.source.sha256}))
    made = made.model_copy(update={"source_sha256": given.source_sha256})
    steps = stages_of(opened, made)
    cut = steps[0].after if made.structures == DEFAULT_STRUCTURES else tidied(_with_means(steps, state_dict))
    built, kind, why = rebuild(dense, example_inputs, opened, made, cut)
    if kind == "module" and not set(state_dict) >= set(built.state_dict()):
        built, kind, why = to_graph_module(cut), "graph", ()
    _make_room(built, state_dict)
    try:
        built.load_state_dict(state_dict)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise PrunecError(
            "PC042", f"the state does not fit: {' '.join(lines[1:3])}"[:400], where=type(dense).__name__,
            hint="use the plan and the class of module that the state was saved from",
        ) from error  # fmt: skip
    return PrunedModule(built, kind, made, cut, tuple(why), masks=_masks(built, kind, opened, made, cut))


def _with_means(steps: Sequence[Stage], state: Any) -> ir.Model:
    """What the stages leave, with the constants that stand for removed blocks where the state has one."""
    model = steps[-1].after
    for block in (block for step in steps for block in step.blocks):
        found = state.get(identifier(constant_name(block.output)))
        if found is not None:
            model = with_constant(model, block.output, np.zeros(tuple(found.shape)))
    return model


def _masks(built: torch.nn.Module, kind: Kind, opened: Opened, plan: Plan, final: ir.Model) -> dict[str, torch.Tensor]:
    if not plan.layers:
        return {}
    own = kind == "module"
    sparse = own_parameters(plan, trace_weights(opened.source.model)) if own else graph_parameters(plan, built, final)
    return masks_of(built, sparse)


def rebuild(
    module: torch.nn.Module, example_inputs: Any, opened: Opened, plan: Plan, final: ir.Model
) -> tuple[torch.nn.Module, Kind, tuple[Diagnostic, ...]]:
    """The module's own class where that is exact, else a GraphModule and the warning PC041 with the reason."""
    probes = [split_inputs(example_inputs), _noise(*split_inputs(example_inputs))]
    expected = [_outputs(final, *probe) for probe in probes]
    instead = ""
    try:
        own = _in_place(module, opened, plan, final)
        error = max(agreement(own, *probe, want) for probe, want in zip(probes, expected, strict=True))
        if error <= TOLERANCE:
            return own, "module", ()
        reason = f"its outputs would differ by {error:.1e}" if np.isfinite(error) else "its outputs would differ"
    except NotInPlace as found:
        reason, instead = str(found), f"{found.hint}; " if found.hint else ""
    except Exception as found:  # noqa: BLE001  (the user's forward, on parameters of other shapes)
        reason = f"{type(found).__name__}: {str(found).splitlines()[0] if str(found) else ''}"[:200]
    graph = to_graph_module(final, trainable=[name for name, _ in module.named_parameters()])
    flat: list[tuple[Any, Any]] = [([tensor.detach().cpu() for tensor in _leaves(*probe)], {}) for probe in probes]
    error = max(agreement(graph, *probe, want) for probe, want in zip(flat, expected, strict=True))
    if not error <= 10 * TOLERANCE:
        raise PrunecError(
            "PC043",
            f"the torch graph and the pruned model differ by {error:.1e}",
            where=type(module).__name__,
            hint="please report this: an operator is translated wrongly",
        )
    fixed = all(isinstance(d, int) for value in final.graph.inputs for d in (value.shape or ())[:1])
    batch = "; its batch is that of the example inputs: pass dynamic_shapes to free it" if fixed else ""
    note = Diagnostic(
        "PC041",
        f"a GraphModule instead of the module's own class: {reason}",
        where=type(module).__name__,
        hint=f"{instead}its inputs and outputs are flat, its parameters are those of the graph{batch}",
    )
    return graph, "graph", (note,)


def _in_place(module: torch.nn.Module, opened: Opened, plan: Plan, final: ir.Model) -> torch.nn.Module:
    if plan.structures != DEFAULT_STRUCTURES:
        raise NotInPlace(f"the plan cuts more than channels: {', '.join(plan.structures)}")
    keeps = plan.keeps()
    cut = slice_channels(opened.canonical, opened.analysis, opened.analysis.alive(keeps))
    traced = trace_weights(opened.source.model)
    return cut_module(module, new_parameters(traced, opened.analysis, keeps, cut, final))


def _outputs(model: ir.Model, args: Any, kwargs: Any) -> list[np.ndarray]:
    """What ONNX Runtime gives for the example inputs."""
    names = [value.name or "" for value in model.graph.inputs]
    feeds = {name: tensor.detach().cpu().numpy() for name, tensor in zip(names, _leaves(args, kwargs), strict=True)}
    return list(run(make_session(model), feeds).values())


def _leaves(args: Any, kwargs: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _noise(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The example inputs with seeded noise for every float tensor: examples are often zeros or ones."""
    generator = torch.Generator().manual_seed(0)

    def noisy(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        return torch.randn(leaf.shape, generator=generator).to(leaf)

    found: tuple[Any, Any] = torch.utils._pytree.tree_map(noisy, (args, kwargs))
    return found


def _make_room(module: torch.nn.Module, state: Any) -> None:
    """Biases that compensation added are in the state and not yet in the module."""
    for name, part in module.named_modules():
        key = f"{name}.bias" if name else "bias"
        if isinstance(part, torch.nn.Linear | torch.nn.modules.conv._ConvNd) and part.bias is None and key in state:
            part.bias = torch.nn.Parameter(torch.zeros_like(state[key]))
