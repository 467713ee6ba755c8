"""`verify`: check a package again, on its own or against the model it was made from.

On its own: every file has the bytes that the manifest says, the model loads, takes and gives what the manifest says,
and answers finite numbers. With the source: the plan fits the source, its cut is proved again, and the package's model
has the shapes of that cut; quality is judged anew, with the user's data or metric where they are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from prunec.api.benchmarking import check_source
from prunec.api.opening import InputShapes, Opened, PathLike, open_model, sample_of
from prunec.api.options import PlanOptions
from prunec.api.patterning import patterns_record
from prunec.api.permuting import proved
from prunec.api.planning import open_data
from prunec.api.progress import Progress, silent
from prunec.api.pruning import judge, judge_dense
from prunec.api.record import Result
from prunec.api.results import TrialInfo
from prunec.api.stage_proofs import prove_stages
from prunec.api.stages import checked, stages_of, tidied
from prunec.api.target_list import backend_for
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import GateError, PrunecError
from prunec.package.load import Package, load_package
from prunec.package.manifest import PLAN
from prunec.plan.plan import Plan
from prunec.verify.inputs import first_that_runs
from prunec.verify.metrics import is_inexact
from prunec.verify.ort_errors import ORT_ERRORS
from prunec.verify.records import ExactnessRecord, PatternsRecord, QualityRecord, VerificationRecord
from prunec.verify.user_metric import Metric, load_metric

_CHANGED = frozenset({"PC611", "PC612"})


class Verified(Result):
    """What was checked now; `recorded` is what the compile had found."""

    package: str
    files: int
    runs: Literal[True] = True
    proof: tuple[TrialInfo, ...] | None = None
    exactness: ExactnessRecord | None = None
    quality: QualityRecord | None = None
    patterns: PatternsRecord | None = None
    weights_proved: int | None = None
    recorded: VerificationRecord | None = None
    passed: Literal[True] = True


def verify(
    package: PathLike,
    *,
    source: PathLike | None = None,
    calib: str | None = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int = 1,
    input_shapes: InputShapes | None = None,
    progress: Progress = silent,
) -> Verified:
    """Check the package again; with `source`, prove its cut and judge its quality again.

    Quality that was found on real data is judged again on real data only: `calib` or `metric`.

    Raises:
        PrunecError PC610, PC613: there is no package that this version can read; PC615: another source; PC223: data or
        a metric without a source. GateError PC611, PC612: a file is missing or changed; PC501, PC502, PC508, PC509,
        PC523 (a sparsity pattern), PC525 (a weight of the target's artifact).
    """
    if source is None and (calib is not None or metric is not None):
        raise PrunecError("PC223", "quality is judged against the dense model", hint="give it with --source MODEL")
    own = None if metric is None else load_metric(metric)
    progress("checking the files", 0, 0)
    opened = _load(Path(package))
    progress("running the model", 0, 0)
    _check_runs(opened, seed, threads)
    patterns = patterns_record(Plan.load(opened.path / PLAN), ir.load(opened.model_path))
    backend = backend_for(opened.manifest.target)
    found = Verified(
        weights_proved=None if backend is None else backend.verify(opened.path),
        package=str(package),
        files=len(opened.manifest.files),
        patterns=patterns,
        recorded=opened.verification,
    )
    if source is None:
        return found
    check_source(opened, source)
    dense = open_model(source, input_shapes)
    plan = Plan.load(opened.path / PLAN)
    stages = stages_of(dense, checked(dense, plan))
    progress("proving the cut", 0, 0)
    outcomes, exactness = prove_stages(stages, seed=seed, threads=threads)
    order = proved(dense, plan, stages[0].before, seed=seed, threads=threads)
    if patterns is not None:
        patterns = patterns.model_copy(update={"permutation": order})
    model = ir.load(opened.model_path)
    _check_shapes(tidied(stages[-1].after), model)
    progress("judging quality", 0, 0)
    options = PlanOptions(calib=calib, samples=samples, seed=seed, threads=threads)
    recorded = None if opened.verification is None else opened.verification.quality
    quality = None
    if calib is not None or own is not None or recorded is None or recorded.data == "synthetic":
        quality = _quality(dense, model, options, own)
    proof = tuple(TrialInfo.of(outcome) for outcome in outcomes)
    update = {"proof": proof, "exactness": exactness, "quality": quality, "patterns": patterns}
    return found.model_copy(update=update)


def _load(path: Path) -> Package:
    """A file that is missing or changed is a verification that says no, not a mistake in the call."""
    try:
        return load_package(path)
    except PrunecError as error:
        found = error.diagnostic
        if found.code not in _CHANGED:
            raise
        raise GateError(found.code, found.message, where=found.where, hint=found.hint) from None


def _check_runs(package: Package, seed: int, threads: int) -> None:
    """The model gives the outputs of the manifest, as finite numbers. GateError PC509."""
    try:
        session = make_session(package.model_path, threads=threads)
    except ORT_ERRORS as reason:
        raise GateError("PC509", f"the model does not load: {reason}", where=str(package.model_path)) from None
    model = ir.load(package.model_path)
    outputs = run(session, first_that_runs(model, lambda feeds: run(session, feeds), seed, ORT_ERRORS))
    wanted = {record.name: record.dtype for record in package.manifest.outputs}
    got = {name: array.dtype.name for name, array in outputs.items()}
    if got != wanted:
        raise GateError("PC509", f"the model gives {got}, the manifest says {wanted}", where=str(package.model_path))
    if package.compiled_path is not None:
        _check_compiled(package, model, package.compiled_path, seed, threads)
    if package.module_path is not None:
        _check_module(package, model, package.module_path, seed)
    if package.libraries_path is not None:
        _check_libraries(package, model, package.libraries_path, seed)
    for name, array in outputs.items():
        if is_inexact(array) and np.isnan(array).all() and array.size:
            raise GateError("PC509", "the model answers nothing but NaN", where=name)


def _check_compiled(package: Package, model: ir.Model, folder: Path, seed: int, threads: int) -> None:
    """The compiled model equals the pruned one in ONNX Runtime, on inputs of all its shapes. GateError PC526."""
    from prunec.backends.cpu.checking import compare
    from prunec.backends.cpu.compiled import compiled_shapes

    compare(package.model_path, folder, [sample_of(model, shapes, seed) for shapes in compiled_shapes(folder)], threads)


def _check_module(package: Package, model: ir.Model, folder: Path, seed: int) -> None:
    """The WebAssembly module equals the pruned model in ONNX Runtime. GateError PC526; PC455 without wasmtime."""
    from prunec.backends.cross.half import stored_as
    from prunec.backends.wasm.spec import WasmSpec
    from prunec.backends.wasm.target import check

    spec = WasmSpec.read(folder)
    shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
    check(stored_as(model, spec.storage), folder, [sample_of(model, shapes, seed)])


def _check_libraries(package: Package, model: ir.Model, folder: Path, seed: int) -> None:
    """The code for 64-bit ARM equals the pruned model in ONNX Runtime. GateError PC526; PC455 without qemu."""
    from prunec.backends.arm64.target import check
    from prunec.backends.cross.half import stored_as
    from prunec.backends.cross.spec import ModelSpec

    spec = ModelSpec.read(folder)
    shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
    check(stored_as(model, spec.storage), folder, [sample_of(model, shapes, seed)])


def _check_shapes(cut: ir.Model, model: ir.Model) -> None:
    """Every layer of the package has the weight shape that the plan's cut gives it. GateError PC508."""
    have = {node.name: node for node in model.graph}
    for node in cut.graph:
        same = have.get(node.name)
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or value.shape is None or index == 0:
                continue
            other = same.inputs[index] if same is not None and index < len(same.inputs) else None
            if other is None or other.shape != value.shape:
                raise GateError(
                    "PC508",
                    f"the package's model is not what its plan cuts: input {index} is "
                    f"{other.shape if other is not None else 'missing'}, not {value.shape}",
                    where=node.name,
                    hint="compile the model again",
                )


def _quality(dense: Opened, pruned: ir.Model, options: PlanOptions, metric: Metric | None) -> QualityRecord | None:
    calibration = open_data(dense, options)
    return judge(dense, pruned, calibration, options, judge_dense(dense, metric, options.threads))
