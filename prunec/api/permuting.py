"""Orders of channels in a compile: find them, record them in the plan, carry them out, prove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.patterning import planned_layers
from prunec.api.progress import Progress, counted
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis, Pin
from prunec.graph.orders import analyse_orders
from prunec.passes.compensate import Options, compensate
from prunec.passes.permute import Found, Trial, find_orders, held_layers, permute_channels
from prunec.passes.sparsify import LayerPattern
from prunec.plan.fingerprint import fingerprint
from prunec.plan.permutation import LeftPlan, OrderPlan, PermutationPlan, source_of
from prunec.plan.plan import Plan
from prunec.plan.structures import DEFAULT_STRUCTURES
from prunec.statistics import collect
from prunec.verify.inputs import Feeds
from prunec.verify.order_exactness import prove_order
from prunec.verify.records import OrderRecord, PermutationRecord


def with_permutation(
    plan: Plan, opened: Opened, cut: ir.Model, calibration: Calibration, options: PlanOptions, progress: Progress
) -> Plan:
    """`plan` with the orders that are worth it; as it is where none are asked for or there is nothing to order.

    Raises:
        PrunecError PC330 to PC332: as `passes.compensate`.
    """
    if not options.permutes() or plan.structures != DEFAULT_STRUCTURES:
        return plan
    alive = opened.analysis.alive(plan.keeps())
    shifts = options.chosen_recipe().compensation != "none"
    found = order_channels(
        opened, cut, alive, planned_layers(plan), calibration, shifts=shifts, options=options, progress=progress
    )
    return plan.model_copy(update={"permutation": found})


def order_channels(
    opened: Opened,
    cut: ir.Model,
    alive: np.ndarray,
    wanted: Mapping[str, LayerPattern],
    calibration: Calibration,
    *,
    shifts: bool,
    options: PlanOptions,
    progress: Progress,
) -> PermutationPlan | None:
    """The orders to take, None where no group has a better one. `cut` is the canonical model less what is not `alive`.

    `shifts`: biases will be corrected, so that the spread of an input counts and its mean does not.
    """
    orders = analyse_orders(opened.canonical)
    seed, threads = options.seed, options.threads
    energy = _energy(opened, alive, calibration, shifts=shifts, options=options, progress=progress)
    layers = held_layers(cut, wanted, orders, energy, _Kept(opened.analysis, alive))
    gone = _gone(orders, opened.analysis, alive) | _unseen(orders, wanted.keys() - {layer.name for layer in layers})
    found = find_orders(layers, orders, gone=gone, seed=seed, progress=counted(progress, "ordering channels"))
    if not found:
        return None
    trial = Trial(layers, found, orders.channel_count, shifts=shifts)
    own = Options(method="none", seed=seed, threads=threads, gate=False)
    step = counted(progress, "trying orders")
    compensate(opened.canonical, cut, opened.analysis, alive, calibration, own, step, trial, options.cache)
    return _planned(opened.canonical, orders, found, trial)


def permuted(opened: Opened, plan: Plan) -> ir.Model:
    """The canonical model in the plan's order. PrunecError PC204, PC205: the order does not fit the model."""
    if plan.permutation is None:
        return opened.canonical
    orders = analyse_orders(opened.canonical)
    return permute_channels(opened.canonical, orders, source_of(plan.permutation, opened.canonical, orders))


def proved(
    opened: Opened, plan: Plan, dense: ir.Model, *, seed: int, threads: int, spare: Feeds | None = None
) -> PermutationRecord | None:
    """That `dense`, the canonical model in the plan's order, computes what it did; None where nothing was reordered.

    Raises:
        GateError PC501: it does not; PrunecError PC504, PC505: the model does not run on random inputs.
    """
    if plan.permutation is None or not plan.permutation.groups:
        return None
    outcomes = prove_order(opened.canonical, dense, seed=seed, threads=threads, spare=spare)
    doubles = [outcome.float64 for outcome in outcomes if outcome.float64 is not None]
    return PermutationRecord(
        groups=tuple(
            OrderRecord(
                id=group.id,
                moved=sum(place != channel for place, channel in enumerate(group.order)),
                kept_before=group.kept_before,
                kept_after=group.kept_after,
                error_before=group.error_before,
                error_after=group.error_after,
            )
            for group in plan.permutation.groups
        ),
        float32_max_rel=max(outcome.float32 for outcome in outcomes),
        float64_max_rel=max(doubles) if len(doubles) == len(outcomes) else None,
        float64_skipped=next((o.float64_skipped for o in outcomes if o.float64_skipped is not None), None),
        seeds=tuple(outcome.seed for outcome in outcomes),
        passed=True,
    )


class _Kept:
    """(node, input, axis) → which positions of a weight are left, None where all are."""

    def __init__(self, analysis: Analysis, alive: np.ndarray) -> None:
        self.analysis, self.alive = analysis, alive

    def __call__(self, node: str, index: int, axis: int) -> np.ndarray | None:
        axes = self.analysis.use_axes.get((node, index))
        ids = None if axes is None else axes[axis]
        return None if ids is None or self.alive[ids].all() else self.alive[ids]


def _gone(orders: Analysis, analysis: Analysis, alive: np.ndarray) -> set[int]:
    """Classes of `orders` with a position that is cut."""
    kept = _Kept(analysis, alive)
    gone: set[int] = set()
    for (node, index), axes in orders.use_axes.items():
        for axis, ids in enumerate(axes):
            mask = None if ids is None else kept(node, index, axis)
            if ids is not None and mask is not None:
                gone.update(ids[~mask].tolist())
    return gone


def _unseen(orders: Analysis, nodes: Set[str]) -> set[int]:
    """Classes on the weights of `nodes`: sparse layers that an order would change and nobody would ask."""
    return {
        channel
        for (node, _), axes in orders.use_axes.items()
        if node in nodes
        for ids in axes
        if ids is not None
        for channel in np.unique(ids).tolist()
    }


def _energy(
    opened: Opened,
    alive: np.ndarray,
    calibration: Calibration,
    *,
    shifts: bool,
    options: PlanOptions,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """E[x²] of every layer's kept inputs in the dense model, less the square of the mean where biases take that."""
    statistics = collect(
        opened.canonical, opened.analysis, calibration, frozenset({"moments"}), threads=options.threads,
        seed=options.seed, cache=options.cache, progress=counted(progress, "statistics"),
    )  # fmt: skip
    found = {}
    for consumer in opened.analysis.consumers:
        layer = statistics.get(consumer.node)
        if layer is not None and len(layer.mean) == len(consumer.channels):
            spread = layer.second_moment_diag - (np.square(layer.mean) if shifts else 0.0)
            found[consumer.node] = np.maximum(spread, 0.0)[alive[consumer.channels]]
    return found


def _planned(model: ir.Model, orders: Analysis, found: Sequence[Found], trial: Trial) -> PermutationPlan:
    taken, left = [], []
    groups = {group.id: group for group in orders.groups}
    for order in found:
        group, (before, after) = groups[order.group], trial.errors(order.group)
        if not after < before:
            why = f"the held-out error of its solved layers went from {before:.4g} to {after:.4g}"
            left.append(LeftPlan(id=group.id, why=why))
            continue
        local = {channel: place for place, channel in enumerate(group.channels.tolist())}
        places = list(range(group.size))
        for channel, source in zip(order.classes.tolist(), order.source.tolist(), strict=True):
            places[local[channel]] = local[source]
        taken.append(
            OrderPlan(
                id=group.id,
                size=group.size,
                producers=tuple(dict.fromkeys(member.node for member in group.producers())),
                kept_before=round(order.kept_before, 6),
                kept_after=round(order.kept_after, 6),
                error_before=round(before, 6),
                error_after=round(after, 6),
                order=tuple(places),
            )
        )
    reached = {order.group for order in found}
    left += [LeftPlan(id=group.id, why=_why(group.pinned)) for group in orders.groups if group.id not in reached]
    return PermutationPlan(fingerprint=fingerprint(model, orders), groups=tuple(taken), left=tuple(left))


def _why(pinned: Pin | None) -> str:
    return "no other order keeps more" if pinned is None else f"{pinned.code}: {pinned.node} {pinned.reason}"
