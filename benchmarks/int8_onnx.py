"""Static int8 for ONNX Runtime: prunec's, ONNX Runtime's own, and what pruning adds, on the same calibration data.

    python -m benchmarks.int8_onnx fashion-net crepe-tiny [--flops 0.7 0.5] [--zeros block:4x4=0.5 2:4]
        [--roundings nearest joint] [--samples 256] [--test-samples N] [--blocks 20] [--no-times] [--keep rows.json]
        [--recover MINUTES] [--markdown table.md]

For every model of the zoo: float32; ONNX Runtime's `quantize_static` (QDQ, uint8 activations, int8 weights per
channel) with min-max and with percentile ranges; prunec's int8 of the dense model; prunec's int8 of the model pruned
to each `--flops`, and of the model with each pattern of `--zeros`: the float model with zeros, and that in 8 bits by
each of `--roundings` (all of them; of the dense model too where they are given): weights at their nearest values with
corrected biases; with the same zeros, rounded on what the quantised layers before give, up or down as is learnt or in
a sweep; with zeros and integers found together; and all of that. Where the outputs of a walk are farther off than
those of the nearest values these are kept, and the row is theirs; `note` has both errors on the samples that decided,
and which layers took what. With `--recover` two more rows for each pattern: trained for so many minutes (`--recover
full`, no labels) and then quantised; and trained half as long, quantised, and trained as long again through the
quantisers. Weights have as many bits as `--precision int8` gives them on this machine. `value`: the model's own
metric on test data that calibration never saw. `error`: of the outputs on held-out calibration data against float, ‖a
− b‖ / ‖b‖. `over_float` and `over_int8`: times of the float model and of ONNX Runtime's min-max int8 over this row's,
processor time of one thread, interleaved, with 95 % intervals; `--no-times` leaves them out and needs no quiet
machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime import quantization

import prunec
from benchmarks.kept import KeptRows
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.opening import one_sample
from prunec.api.patterning import planned_layers
from prunec.api.pruning import target_of
from prunec.api.quantising import weight_bits
from prunec.api.stages import stages_of
from prunec.measure.contender import Contender
from prunec.measure.run import measure
from prunec.passes.held_out import held_out_error
from prunec.passes.quantise import Quantised, Rounding, quantise
from prunec.passes.quantise.roundings import DEFAULT, ROUNDINGS
from prunec.verify.records import RecoveryRecord

FLOAT, OTHER = "float32", "onnxruntime min-max"
METHODS = {OTHER: quantization.CalibrationMethod.MinMax,
           "onnxruntime percentile": quantization.CalibrationMethod.Percentile}  # fmt: skip
PEER_SAMPLES = 128
"""For `quantize_static`, which keeps the values of every tensor in memory."""


@dataclass
class Row:
    model: str
    way: str
    metric: str
    value: float | None
    error: float | None
    over_float: str | None
    over_int8: str | None
    mib: float | None
    note: str = ""


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples one by one, as `quantize_static` asks for them."""

    def __init__(self, subject: Subject) -> None:
        self._left = self._samples(subject)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)

    @staticmethod
    def _samples(subject: Subject) -> Iterator[dict[str, np.ndarray]]:
        count = 0
        for feeds in subject.calibration.fit():
            for number in range(len(next(iter(feeds.values())))):
                yield {name: array[number : number + 1] for name, array in feeds.items()}
                count += 1
                if count == PEER_SAMPLES:
                    return


def main() -> int:
    parser = argparse.ArgumentParser(description="Static int8 in ONNX Runtime.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--flops", type=float, nargs="*", default=[0.7, 0.5])
    parser.add_argument("--zeros", nargs="*", default=[], help="PATTERN or PATTERN=SPARSITY")
    parser.add_argument("--roundings", nargs="*", choices=ROUNDINGS)
    parser.add_argument("--recover", type=float, metavar="MINUTES")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    kept, rows = KeptRows(Row, arguments.keep), list[Row]()
    for name in arguments.models:
        key = (
            name,
            arguments.samples,
            arguments.test_samples,
            arguments.blocks,
            arguments.no_times,
            *arguments.flops,
            *arguments.zeros,
            *(arguments.roundings or ()),
            arguments.recover,
        )
        for row in kept.rows(key, partial(table, name, arguments)):
            rows.append(row)
            print(line(row), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def table(name: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """All rows of one model: every file is made first, then all are timed in one interleaved run."""
    subject = Subject(name, samples=arguments.samples, test_samples=arguments.test_samples, seed=0)
    with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as folder:
        notes = dict[str, str]()
        files = dict(made(subject, Path(folder), arguments, notes))
        able = {way: file for way, file in files.items() if isinstance(file, Path)}
        contenders = [Contender(way, file) for way, file in able.items()]
        feeds, over = one_sample(subject.calibration, subject.opened.canonical), dict[str, dict[str, str]]()
        for way in () if arguments.no_times else able:
            others = [one for one in contenders if one.name in {FLOAT, OTHER, way}]
            found = measure(others, feeds, blocks=arguments.blocks, subject=way, clock="cpu")
            over[way] = {
                key.removeprefix("vs_"): _spelled(value.median, value.ci95) for key, value in found.speedup.items()
            }
        for way, file in files.items():
            if isinstance(file, str):
                yield Row(name, way, subject.metric, None, None, None, None, None, file)
                continue
            model = ir.load(file)
            yield Row(
                name, way, subject.metric, subject.judge(model),
                held_out_error(subject.opened.canonical, model, subject.calibration, 1), over.get(way, {}).get(FLOAT),
                over.get(way, {}).get(OTHER), file.stat().st_size / 2**20, notes.get(way, ""),
            )  # fmt: skip


def made(
    subject: Subject, folder: Path, arguments: argparse.Namespace, notes: dict[str, str]
) -> Iterator[tuple[str, Path | str]]:
    """Way → file, or why there is none. `notes` by way are added to."""
    dense = folder / "float.onnx"
    ir.save(subject.opened.canonical, dense)
    yield FLOAT, dense
    for way, method in METHODS.items():
        path = folder / f"{way}.onnx"
        try:
            quantization.quantize_static(
                str(dense), str(path), Reader(subject), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                calibrate_method=method,
            )  # fmt: skip
        except Exception as reason:  # noqa: BLE001  (a peer may fail in any way, and the row says how)
            yield way, f"{type(reason).__name__}: {reason}"[:120]
            continue
        yield way, path
    roundings: Sequence[Rounding] | None = arguments.roundings
    for rounding in (DEFAULT,) if roundings is None else roundings:
        own = folder / f"own.{rounding}.onnx"
        quantised = quantise(subject.opened.canonical, subject.calibration, rounding=rounding, bits=weight_bits())
        ir.save(quantised.model, own)
        way = "prunec int8" if roundings is None else f"prunec int8 {rounding}"
        notes[way] = noted(quantised)
        yield way, own
    for share in arguments.flops:
        found = prunec.compile(
            subject.found.path, flops=share, calib=subject.found.calib, samples=subject.calibration.samples,
            precision="int8", measure=False, output=folder / f"out{share}",
        )  # fmt: skip
        assert found.out is not None
        yield f"prunec int8, {share:.0%} of MACs", Path(found.out, "model.onnx")
    for pattern in arguments.zeros:
        yield from with_zeros(subject, folder, pattern, ROUNDINGS if roundings is None else roundings, notes)
        if arguments.recover is not None:
            yield from trained(subject, folder, pattern, arguments.recover, notes)


def with_zeros(
    subject: Subject, folder: Path, asked: str, roundings: Sequence[Rounding], notes: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """The same zeros in float, and in int8 by each rounding."""
    pattern, _, level = asked.partition("=")
    found = prunec.compile(
        subject.found.path, pattern=pattern, sparsity=float(level) if level else None, calib=subject.found.calib,
        samples=subject.calibration.samples, measure=False, output=folder / asked.replace(":", "_"),
    )  # fmt: skip
    assert found.out is not None
    path = Path(found.out, "model.onnx")
    yield f"{asked} float32", path
    model = ir.load(path)
    target = target_of(stages_of(subject.opened, found.plan), planned_layers(found.plan))
    for rounding in roundings:
        own = folder / f"{path.parent.name}.{rounding}.onnx"
        quantised = quantise(model, subject.calibration, target=target, rounding=rounding, bits=weight_bits())
        ir.save(quantised.model, own)
        way = f"{asked} int8 {rounding}"
        notes[way] = noted(quantised)
        yield way, own


def trained(
    subject: Subject, folder: Path, asked: str, minutes: float, notes: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """The same minutes of training: all before 8 bits, or half of them in 8 bits."""
    pattern, _, level = asked.partition("=")
    bits = weight_bits()
    for where, precision in (("in float32", None), ("half in float32, half in 8 bits", "int8")):
        way = f"{asked} int8, trained {where}"
        found = prunec.compile(
            subject.found.path, calib=subject.found.calib, samples=subject.calibration.samples, measure=False,
            recover="full", recover_minutes=minutes, precision=precision, output=folder / way.replace(":", "_"),
            pattern=pattern, sparsity=float(level) if level else None,
        )  # fmt: skip
        assert found.out is not None and found.verification is not None
        path = Path(found.out, "model.onnx")
        records = [found.verification.recovery]
        if precision is None:
            ir.save(quantise(ir.load(path), subject.calibration, bits=bits).model, path)
        else:
            assert found.verification.quantisation is not None
            records.append(found.verification.quantisation.recovery)
        notes[way] = "; ".join(map(_training, filter(None, records)))
        yield way, path


def _training(record: RecoveryRecord) -> str:
    steps, fate = sum(run.done for run in record.runs), "" if record.kept else ", not kept"
    return f"{steps} steps, error {record.error_before:.4f} to {record.error_after or float('inf'):.4f}{fate}"


def noted(found: Quantised) -> str:
    """How the weights were rounded, and the errors by which that was decided."""
    walked = "" if found.error_swept is None else f", walked {found.error_swept:.4f}"
    taken = ", ".join(f"{count}× {method}" for method, count in sorted(found.rounding.items()))
    return f"nearest {found.error_nearest:.4f}{walked}: {taken}"


def _spelled(median: float, interval: tuple[float, float]) -> str:
    return f"{median:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
