"""The target `tensorrt-2:4`: refuses early what TensorRT cannot take, writes and proves packages, builds on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from prunec.backends.base import (
    Artifact,
    BuildOptions,
    LayerTimes,
    Subject,
    Verdict,
    batch_size,
    first_batches,
    refuse_tuning,
)
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt import environment
from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.executed import execute
from prunec.backends.tensorrt.half import to_half
from prunec.backends.tensorrt.limits import check_operators, check_ranges
from prunec.backends.tensorrt.lower import (
    CALIBRATE,
    CALIBRATE_SAMPLES,
    check_lowering_options,
    compare,
    convert,
    fitted,
    prepared,
    prove_planned,
)
from prunec.backends.tensorrt.package import FOLDER, Contents, write_folder, write_words
from prunec.backends.tensorrt.proving_again import verify_folder
from prunec.backends.tensorrt.smoke import smoke
from prunec.diagnostics import Diagnostic
from prunec.plan.layers import DENSE, TargetRules
from prunec.verify.records import DenseLayer, TensorRTRecord

NOT_EXECUTED = Diagnostic(
    "PC441",
    "not executed here: no engine was built, so nothing is known about sparse kernels being chosen, nor about speed",
    hint="on a machine with an NVIDIA GPU run build.sh and benchmark.py in the package's folder tensorrt",
)
USAGE = """\
The folder tensorrt/ holds the FP16 model with 2:4 weights and what builds and measures it; see its README.md.

    cd tensorrt
    ./build.sh                # trtexec, TensorRT 10.x or 11.x; or: python3 build.py
    python3 benchmark.py      # dense, 2:4, and 2:4 on sparse kernels, timed in turn
"""
MARK = """\
Not executed here: no engine was built where this package was made, so nothing is known about sparse kernels being
chosen, nor about speed.

"""
"""In front of the usage of what has not run."""


class TwoOfFour:
    """What is the same in every target whose kernels TensorRT chooses."""

    specialises = False
    models_times = False
    patterns = ("2:4",)

    def judge(self, model: ir.Model) -> Sequence[Verdict]:
        return judge(model)

    def rules(self, model: ir.Model) -> TargetRules:
        """Reasons of layers that cannot be sparse, and of those that are not expected to be faster so."""
        verdicts = judge(model, counts=False)
        return TargetRules(
            impossible={verdict.node: verdict.reason for verdict in verdicts if not verdict.eligible},
            unprofitable={v.node: f"eligible, but {v.reason}" for v in verdicts if v.eligible and not v.worthwhile},
        )

    def times(self, *_: object) -> Mapping[str, LayerTimes]:
        """Nothing is known: TensorRT chooses on the device."""
        return {}


class TensorRT(TwoOfFour):
    """See the module."""

    name = "tensorrt-2:4"

    def check(self, options: BuildOptions) -> None:
        check_lowering_options(options)
        refuse_tuning(options, self.name)
        if options.builds:
            environment.check()

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        check_operators(model)
        check_ranges(model, options.ranges)

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        asked = [layer.node for layer in subject.layers if layer.pattern != DENSE]
        fit = first_batches(subject.fit(), CALIBRATE, CALIBRATE_SAMPLES)
        model, dense = (prepared(m, asked, fit, options) for m in (subject.model, subject.dense))
        half = convert(model, fit, options.threads)
        precision = options.precision or "fp16"
        verdicts = judge(half.model)
        planned, left = split(verdicts, subject, half.islands)
        proofs = prove_planned(half.model, verdicts, planned)
        lowering = compare(subject.model, half.model, subject.batches, threads=options.threads, precision=precision)
        feeds = fitted(subject.batches[0], options.ranges)
        contents = Contents(
            name=subject.name, model=half.model, dense=to_half(dense, half.islands).model, verdicts=verdicts,
            planned=planned, left_dense=left, proofs=proofs, ranges=options.ranges, precision=precision,
            lowering=lowering,
            samples=sum(map(batch_size, subject.batches)), inputs=feeds,
            outputs=run(make_session(subject.model, threads=options.threads), feeds),
        )  # fmt: skip
        written = write_folder(folder, contents)
        record = TensorRTRecord(
            planned_sparse=tuple(planned),
            eligible=tuple(verdict.node for verdict in verdicts if verdict.eligible),
            left_dense=tuple(DenseLayer(name=name, reason=reason) for name, reason in left.items()),
            executed=False,
            precision=precision,
            fp32_islands=dict(sorted(Counter(half.islands.values()).items())),
            weights_proved=len(proofs),
            product_max_rel=max((proof.product_max_rel for proof in proofs), default=0.0),
            smoke=smoke(written),
        )
        artifact = Artifact(MARK + USAGE, lowering, record, warnings=(NOT_EXECUTED,))
        if not options.builds:
            return artifact
        done = execute(written, planned, lowering)
        write_words(written, replace(contents, executed=True))
        told = record.model_copy(update={"executed": True, "kernels": done.kernels})
        return replace(
            artifact,
            usage=USAGE,
            tensorrt=told,
            contenders=done.contenders,
            feeds=feeds,
            warnings=(),
            scratch=done.scratch,
        )

    def verify(self, package: Path) -> int:
        return verify_folder(package / FOLDER)


def split(
    verdicts: Sequence[Verdict], subject: Subject, islands: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Layers that are to run sparse, and why the others will not, in graph order."""
    plans = {layer.node: layer for layer in subject.layers}
    planned, left = [], {}
    for verdict in verdicts:
        name, plan = verdict.node, plans.get(verdict.node)
        if plan is None or plan.pattern == DENSE:
            left[name] = verdict.reason if plan is None else plan.why
        elif name in islands:
            left[name] = f"stays FP32: {islands[name]}"
        else:
            planned.append(name)
    return planned, left
