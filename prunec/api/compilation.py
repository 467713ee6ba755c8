"""`compile`: from a model and a budget to a package.

    read → canonicalise → groups → statistics → plan → cut → prove → compensate → recover → judge → save → measure
    → gates

Nothing is written to `output` before every check and every gate has passed: a package on disk is a package that holds
what was demanded. A gate that says no raises `Refused`, which carries all that was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunec.api.artifact_options import backend_of, demo_options
from prunec.api.dump import Dump
from prunec.api.evidence import given_options
from prunec.api.gates import check_gates, refusals, wide_drop
from prunec.api.opening import InputShapes, Model, Opened, PathLike, open_model, stem
from prunec.api.options import PlanOptions
from prunec.api.planning import make, open_data, recorded, replay
from prunec.api.progress import Progress, silent, tidying
from prunec.api.pruning import Judged, judge, judge_dense, prune, training_judge
from prunec.api.quantising import (
    IN_FLOAT,
    as_contender,
    check_precision,
    check_rounding,
    dense_in_int8,
    has_8_bits,
    implied_precision,
    quantised,
    weight_bits,
)
from prunec.api.recovering import check_recovery
from prunec.api.results import Compiled, Refused, WarningInfo
from prunec.api.saving import Save, save
from prunec.api.target_list import INT8, ONNX
from prunec.api.training_options import planned_training
from prunec.backends.base import BuildOptions, Range
from prunec.cache import default_cache
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration, Samples
from prunec.frontend.input_shapes import common_shapes
from prunec.heap import large_blocks_apart
from prunec.measure.contender import Contender
from prunec.package.destination import check_destination
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.verify.user_metric import load_metric


@large_blocks_apart()
def compile(
    model: Model,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    output: PathLike | None = None,
    target: str = "onnx",
    pattern: str = "auto",
    recipe: str | Path | None = None,
    criterion: str | None = None,
    scope: str | None = None,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    speedup: float | None = None,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    calib: Samples = None,
    metric: str | None = None,
    samples: int | None = None,
    min_speedup: float | None = None,
    max_drop: float | None = None,
    seed: int | None = None,
    threads: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    round_to: int | None = None,
    structures: str | Sequence[str] | None = None,
    solver: str | None = None,
    allocation: str | None = None,
    losses: str | None = None,
    permute: bool | None = None,
    finer: float | None = None,
    polish: int = 0,
    plan: PathLike | None = None,
    compensate: bool = True,
    recover: str | None = None,
    recover_minutes: float | None = None,
    recover_soup: int | None = None,
    recover_precision: str | None = None,
    steps: int | None = None,
    measure: bool = True,
    dry_run: bool = False,
    force: bool = False,
    dump: PathLike | None = None,
    cache: bool = True,
    input_shapes: InputShapes | Sequence[Mapping[str, Sequence[int]]] | None = None,
    build: bool = True,
    shape_ranges: Mapping[str, Range] | None = None,
    precision: str | None = None,
    rounding: str | None = None,
    products: str | None = None,
    tune: str = "none",
    weights: str | None = None,
    relaxed_simd: bool = False,
    storage: str = "fp32",
    demo: bool = False,
    demo_labels: PathLike | None = None,
    demo_vocabulary: PathLike | None = None,
    progress: Progress = silent,
) -> Compiled:
    """Prune `model` and write the package `output` (default: the model's name with `.pruned`).

    `model`: an ONNX file, or a torch module with `example_inputs`: a tensor, a tuple of positional arguments or a dict
    of keyword arguments. `dynamic_shapes` is handed to `torch.export.export`; without it every shape is that of the
    examples. `input_shapes` makes dynamic axes static; a list of them makes a program for each (`target="cpu"`), and
    only what all agree on becomes static in the pruned model.

    `plan` replays a plan file instead of a budget: with the same data it gives the same bytes. Seed, number of
    samples and compensation are the plan's own unless `seed`, `samples`, `recipe` or `compensate` say otherwise.
    `dry_run` plans and writes nothing. `build=False` makes the package of a target that needs a device without one,
    and `shape_ranges` gives such a target the least, usual and largest shape of dynamic inputs. Statistics and
    finished layers are kept in `prunec.cache` and found there by the next call with the same inputs, unless `cache`
    is False. `tune` (quick, full) lets a target with generated code choose its kernels by measuring them here, and
    remembers what it found. `precision="int8"` quantises the pruned model, for ONNX Runtime (`target="onnx"`) or
    prunec's own kernels (`cpu`, `wasm`, `arm64`), which skip zero blocks of 4×4; on `cpu` budgets of time are met in 8
    bits, and "mixed" chooses each layer's data type as well. `rounding`: how its weights become integers (nearest,
    adaround, sweep, joint, best). `finer` gives layers finer blocks where those cost no
    more than this share of their time. `weights` (beside, embedded) and `relaxed_simd` are about
    `target="wasm"`, and so is `demo`: a page with the dense model beside it, which may have names of classes
    (`demo_labels`) and a WordPiece vocabulary to read texts with (`demo_vocabulary`). `storage="fp16"` (wasm, arm64)
    rounds weights to half precision, which halves their file; they are float32 again once the model is created.

    `recover` (bias, blocks, full) trains what is left against the dense model for `recover_minutes` (20), without
    labels and with the extra [torch]; the plan says how many steps were made, and a replay makes as many. With
    `precision="int8"` half of the time goes to training through the quantisers, after quantisation. The first Ctrl-C
    ends the training and keeps its best state. With a `metric` a training after which it is lower is
    undone. `recover_soup` trains so many times within the minutes and takes the mean of the trainings where
    that is better. With `steps` above 1 a part goes, the rest is trained, and what goes next is decided on what is
    left; after Ctrl-C all that is still to go goes at once.

    >>> prunec.compile("resnet18.onnx", flops=0.5, calib="images.npz", max_drop=0.01)  # doctest: +SKIP

    Raises:
        PrunecError PC0xx to PC4xx, PC6xx: the model, the options, the data, the target, the place to write to.
        GateError PC5xx: a proof, a check or a measurement failed; `Refused`: a gate said no. Nothing is written.
    """
    shape_sets = () if input_shapes is None or isinstance(input_shapes, Mapping) else tuple(input_shapes)
    if not isinstance(input_shapes, Mapping):
        input_shapes = common_shapes(shape_sets) if shape_sets else None
    ranges = shape_ranges or {}
    options = asked = PlanOptions(
        target=target, precision=precision, pattern=pattern, recipe=recipe, criterion=criterion, scope=scope,
        sparsity=sparsity, flops=flops, params=params, speedup=speedup, latency_ms=latency_ms, size_mb=size_mb,
        calib=calib, samples=samples, seed=seed or 0, threads=threads, include=include,
        exclude=exclude, round_to=round_to, structures=structures, solver=solver,
        allocation=allocation, losses=losses, permute=permute, finer=finer, polish=polish,
        compensation=None if compensate else "none", rounding=rounding, recover=recover,
        recover_minutes=recover_minutes, recover_soup=recover_soup, recover_precision=recover_precision,
        steps=steps, input_shapes=input_shapes,
        measures=measure and build,
        made_up_shapes=shape_sets[0] if shape_sets else {name: usual for name, (_, usual, _) in ranges.items()},
        cache=default_cache() if cache else None,
    )  # fmt: skip
    options.check()
    trains = recover not in (None, "none")
    budget = None if plan is not None else options.required_budget(max_drop=max_drop)
    options.check_steps(budget)
    check_gates(
        min_speedup=min_speedup,
        max_drop=max_drop,
        budget=budget,
        measures=measure,
        dry_run=dry_run,
        builds=build,
        recovers=trains,
        is_relaxed=relaxed_simd and target == "wasm",
    )
    progress = tidying(progress)
    own_build = BuildOptions(
        build, ranges, threads, precision, products, measure, shape_sets, tune, cache, weights, relaxed_simd, progress,
        demo_options(demo, demo_labels, demo_vocabulary), storage,
    )  # fmt: skip
    is_int8 = check_precision(precision, options, budget)
    done_here = replace(own_build, precision=None) if is_int8 and target == ONNX else own_build
    backend = backend_of(target, done_here, dry_run=dry_run)
    if plan is not None:
        options.check_replay()
    out = Path(output if output is not None else f"{stem(model)}.pruned").absolute()
    judged_by = None if metric is None else load_metric(metric)
    judges = not dry_run or (budget is not None and budget.kind == "max-drop")
    if not dry_run:
        check_destination(out, force=force)

    progress("reading the model", 0, 0)
    opened = open_model(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    if implied_precision(opened, precision, options) != precision:
        is_int8 = check_precision(INT8, options, budget)
    check_rounding(options, is_int8=is_int8)
    options = replace(options, trains_in_8_bits=is_int8)
    if backend is not None and not dry_run:
        backend.check_model(opened.canonical, own_build)
    if trains:
        check_recovery(opened.canonical, planned_training(options))
    own = judge_dense(opened, judged_by if judges else None, threads, progress)
    sought = None if trains else max_drop  # training comes later: then it is a gate for what that leaves
    made, options, calibration, warnings = _decide(opened, options, budget, plan, seed, own, sought, progress)
    warnings += wide_drop(max_drop, own)
    check_rounding(options, is_int8=is_int8)  # again: a plan may have switched compensation off
    if opened.stripped is not None and not is_int8 and precision is None:
        warnings.append(IN_FLOAT)
    if dry_run:
        return Compiled(target=target, plan=made, warnings=tuple(map(WarningInfo.of, warnings)))

    def gate(compiled: Compiled) -> None:
        assert compiled.verification is not None
        found = compiled.verification.quality
        said_no = refusals(
            found, compiled.measurements, min_speedup=min_speedup, max_drop=max_drop, budget=budget,
            bytes_after=compiled.bytes_after, modelled=compiled.modelled,
        )  # fmt: skip
        if said_no:
            raise Refused(said_no, compiled)

    with Dump(None if dump is None else Path(dump), force=force) as stages, contextlib.ExitStack() as stack:
        asked_training = made.recovery
        pruned = prune(opened, made, calibration, options, stages=stages, progress=progress, own=own)
        beside, rival = list[Contender](), opened.canonical
        if is_int8 and has_8_bits(pruned.plan):
            bits = weight_bits(relaxed_simd=relaxed_simd)
            judged = training_judge(own, threads, progress)
            pruned = quantised(opened, pruned, asked_training, calibration, options, bits, progress, judged)
            if measure:
                rival = dense_in_int8(opened, pruned.plan, calibration, options, bits, progress)
                beside.append(stack.enter_context(as_contender(rival)))
        made = pruned.plan
        progress("judging quality", 0, 0)
        quality = judge(opened, pruned.shipped, calibration, options, own)
        job = Save(
            out=out, force=force, measures=measure, threads=threads, seed=options.seed,
            backend=backend, build=own_build, beside=beside, rival=rival,
            command=given_options(asked, own_build, made.structures, metric),
        )  # fmt: skip
        if options.cache is not None:
            warnings += options.cache.warnings
        return save(opened, made, pruned, quality, calibration, job, gate, warnings, progress)


def _decide(
    opened: Opened,
    options: PlanOptions,
    budget: Budget | None,
    plan: PathLike | None,
    seed: int | None,
    own: Judged | None,
    max_drop: float | None,
    progress: Progress,
) -> tuple[Plan, PlanOptions, Calibration, list[Diagnostic]]:
    """The plan, made or replayed; the options it leaves; the data; and what is to be said about them."""
    options.chosen_recipe()
    if plan is not None:
        made, options = replay(opened, plan, options, seed)
        calibration = open_data(opened, options)
        return recorded(made, options, calibration), options, calibration, [*opened.warnings, *calibration.warnings]
    assert budget is not None
    calibration = open_data(opened, options, budget)
    made, notes = make(opened, calibration, options, budget, progress, own, max_drop)
    return made, options, calibration, [*opened.warnings, *calibration.warnings, *notes]
