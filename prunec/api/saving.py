"""The end of a compile: write the package beside its place, measure what was written, ask the gates, move it there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from prunec.api.evidence import command_line, layer_table, sparsity_record
from prunec.api.opening import Opened, one_sample
from prunec.api.progress import Progress
from prunec.api.pruning import Pruned
from prunec.api.results import Compiled, TrialInfo, WarningInfo
from prunec.backends.base import Artifact, Backend, BuildOptions, Subject, first_batches
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.frontend.onnx import Source
from prunec.measure.contender import DENSE, OWN, PRUNED, Contender
from prunec.measure.modelled import Elsewhere
from prunec.measure.results import Measurements, slow_shapes
from prunec.measure.run import measure
from prunec.package.manifest import MEASUREMENTS, MODEL, PLAN, REPORT, VERIFICATION, source_record
from prunec.package.writer import PackageWriter, save_model
from prunec.plan.plan import Plan
from prunec.report.data import ReportData
from prunec.report.html import render_report
from prunec.verify.records import QualityRecord, VerificationRecord

NO_QUALITY = Diagnostic(
    "PC352", "the dense model's outputs are empty on this data: nothing is said about quality", hint="give real --calib"
)
BATCHES, SAMPLES = 2, 16
"""Of held-out data, for what an artifact is checked with."""
BUDGET_S = 180.0
"""Most time for the timed blocks of one compile; a large model gets fewer blocks, and the protocol says so."""


@dataclass(frozen=True)
class Save:
    """Where to, and how. `command` are the options that the report's command line shows; `backend` the target's own.

    `beside` are timed together with the dense and the pruned model. `rival`: the dense model as the artifact's own
    code is compared with it; None: as it was read.
    """

    out: Path
    force: bool
    measures: bool
    threads: int
    seed: int
    command: Mapping[str, object]
    backend: Backend | None = None
    beside: Sequence[Contender] = ()
    rival: ir.Model | None = None
    build: BuildOptions = field(default_factory=BuildOptions)


def save(
    opened: Opened,
    plan: Plan,
    pruned: Pruned,
    quality: QualityRecord | None,
    calibration: Calibration,
    job: Save,
    gate: Callable[[Compiled], None],
    warnings: Sequence[Diagnostic],
    progress: Progress,
) -> Compiled:
    """Write the package; `gate` raises where what was found is not good enough, and then nothing is left.

    Raises:
        PrunecError PC60x: it cannot be written; GateError PC51x: it cannot be measured; what `gate` raises.
    """
    found = [*warnings, *pruned.warnings, *([] if quality else [NO_QUALITY])]
    with PackageWriter(job.out, force=job.force) as writer, contextlib.ExitStack() as scratch:
        progress("writing the package", 0, 0)
        path = writer.write_model(pruned.shipped)
        writer.write_text(PLAN, plan.to_bytes().decode())
        artifact = _artifact(writer.folder, opened, plan, pruned, calibration, job, progress)
        if artifact is not None:
            found += artifact.warnings
            scratch.enter_context(artifact.scratch or contextlib.nullcontext())
        source = source_record(opened.source.path, opened.source.sha256)
        usage = None if artifact is None else artifact.usage
        manifest = writer.write_manifest(
            source=source, target=plan.target, model=pruned.shipped, target_usage=usage, recovery=trained_by(pruned)
        )
        measurements = _measured(path, artifact, opened, calibration, job, progress) if job.measures else None
        if measurements is not None:
            writer.write_json(MEASUREMENTS, measurements.to_json())
            found += not_default(measurements)
        modelled = None if artifact is None else artifact.modelled
        if modelled is not None:
            writer.write_json(MEASUREMENTS, Elsewhere(modelled=modelled).to_json())
        verification = VerificationRecord(
            exactness=pruned.exactness,
            lowering=None if artifact is None else artifact.lowering,
            quality=quality,
            sparsity=sparsity_record(opened.canonical, pruned.model, plan),
            compensation=pruned.compensation,
            recovery=None if pruned.recovery is None else pruned.recovery.record,
            patterns=pruned.patterns,
            quantisation=pruned.quantisation,
            tensorrt=None if artifact is None else artifact.tensorrt,
        )
        writer.write_json(VERIFICATION, verification.to_json())
        compiled = Compiled(
            out=str(job.out),
            target=plan.target,
            plan=plan,
            manifest=manifest,
            verification=verification,
            measurements=measurements,
            modelled=modelled,
            proof=tuple(TrialInfo.of(outcome) for outcome in pruned.outcomes),
            layers=tuple(layer_table(opened.canonical, pruned.model)),
            bytes_before=_file_bytes(opened),
            bytes_after=sum(file.bytes for name, file in manifest.files.items() if name.startswith(MODEL)),
            command=command_line(opened.source.path.name, plan, job.command),
            warnings=tuple(map(WarningInfo.of, found)),
        )
        gate(compiled)
        writer.write_text(REPORT, render_report(report_data(compiled, found)))
    return compiled


def trained_by(pruned: Pruned) -> str | None:
    """The method of a recovery whose result is in the package."""
    in_float = None if pruned.recovery is None else pruned.recovery.record
    in_8_bits = None if pruned.quantisation is None else pruned.quantisation.recovery
    kept = [record for record in (in_float, in_8_bits) if record is not None and record.kept]
    return f"--recover {kept[0].method}" if kept else None


def _artifact(
    folder: Path,
    opened: Opened,
    plan: Plan,
    pruned: Pruned,
    calibration: Calibration,
    job: Save,
    progress: Progress,
) -> Artifact | None:
    """What the target's back end makes of the pruned model, below `folder`."""
    if job.backend is None:
        return None
    progress("writing the artifact", 0, 0)
    batches = first_batches(calibration.held_out(), BATCHES, SAMPLES)
    dense = opened.canonical if job.rival is None else job.rival
    subject = Subject(opened.source.path.name, pruned.shipped, dense, plan.layers, batches, calibration.fit)
    return job.backend.write(folder, subject, job.build)


def _measured(
    path: Path,
    artifact: Artifact | None,
    opened: Opened,
    calibration: Calibration,
    job: Save,
    progress: Progress,
) -> Measurements | None:
    """Dense and pruned in ONNX Runtime, or what the artifact brings; None where it brings nothing to time."""
    how = {"threads": job.threads, "seed": job.seed, "progress": progress, "budget_s": BUDGET_S}
    own = () if artifact is None else artifact.contenders
    if artifact is None or artifact.beside_onnxruntime:
        feeds = artifact.feeds if artifact is not None else None
        feeds = one_sample(calibration, opened.canonical) if feeds is None else feeds
        with dense_file(opened.source) as dense:
            found = measure([Contender(DENSE, dense), Contender(PRUNED, path), *job.beside, *own], feeds, **how)  # type: ignore[arg-type]
        if artifact is None:
            return found
        found = found if artifact.layers is None else found.with_layers(artifact.layers)
        ours = [one for one in own if one.name == OWN]
        others = [measure([Contender(PRUNED, path), *ours], each, **how) for each in artifact.other_feeds]  # type: ignore[arg-type]
        return found.with_shapes(others) if others else found
    if not artifact.contenders or artifact.feeds is None:
        return None
    found = measure(artifact.contenders, artifact.feeds, **how)  # type: ignore[arg-type]
    return found if artifact.layers is None else found.with_layers(artifact.layers)


def not_default(measured: Measurements) -> list[Diagnostic]:
    """PC458 where ONNX Runtime was shown to be faster, and so is what `prunec.load` runs."""
    slow = slow_shapes(measured)
    if not slow:
        return []
    where = f" with {'; '.join(slow)}" if measured.shapes else ""
    threads = f"{measured.protocol.threads} thread{'s' * (measured.protocol.threads > 1)}"
    message = (
        f"the compiled model is slower here than the pruned one in ONNX Runtime{where} on {threads}, which prunec.load "
        "therefore uses"
    )
    hint = 'measurements.json has the numbers; load(..., runtime="prunec") runs the compiled one'
    return [Diagnostic("PC458", message, hint=hint)]


def report_data(compiled: Compiled, warnings: Sequence[Diagnostic]) -> ReportData:
    """What the report and the tables in the terminal show."""
    assert compiled.manifest is not None and compiled.verification is not None
    return ReportData(
        manifest=compiled.manifest.to_json(),
        plan=compiled.plan.model_dump(mode="json"),
        verification=compiled.verification.to_json(),
        measurements=compiled.measurements.to_json() if compiled.measurements else None,
        modelled=compiled.modelled.to_json() if compiled.modelled else None,
        layers=compiled.layers,
        warnings=warnings,
        command=compiled.command,
        bytes_before=compiled.bytes_before,
        bytes_after=compiled.bytes_after,
    )


@contextlib.contextmanager
def dense_file(source: Source) -> Iterator[Path]:
    """The source as a file that another process can load: its own, or a temporary one."""
    if source.is_file:
        yield source.path.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, source.path.name)
        save_model(source.model, path)
        yield path


def _file_bytes(opened: Opened) -> int:
    """Size of the source; where its weights are in other files, or it is no file, the bytes of the weights."""
    graphs = opened.source.model.graphs()
    tensors = [value.const_value for graph in graphs for value in graph.initializers.values() if value.const_value]
    if not opened.source.is_file or any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return sum(tensor.nbytes for tensor in tensors)
    return opened.source.path.stat().st_size
