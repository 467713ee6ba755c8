"""A package with all its evidence: measured for real, reported, written, loaded, and reported again from the disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from prunec.measure.contender import DENSE, PRUNED, Contender
from prunec.measure.run import measure
from prunec.package.load import load_package
from prunec.package.manifest import MEASUREMENTS, PLAN, REPORT, VERIFICATION, source_record
from prunec.package.writer import PackageWriter, save_model
from prunec.report.data import ReportData
from prunec.report.html import render_report
from prunec.verify.records import QualityRecord, VerificationRecord
from tests.package.samples import micro_model


def test_a_package_carries_its_evidence(tmp_path: Path) -> None:
    model, plan = micro_model(), {"target": "onnx", "seed": 0, "groups": [{"id": "g0", "size": 4, "kept": 2}]}
    dense = tmp_path / "dense.onnx"
    save_model(model, dense)
    quality = QualityRecord(metric="cosine", dense=1.0, pruned=0.98, drop=0.02, data="calibration")
    verification = VerificationRecord(quality=quality)
    with PackageWriter(tmp_path / "out") as writer:
        pruned = writer.write_model(model)
        writer.write_json(PLAN, plan)
        manifest = writer.write_manifest(source=source_record(dense, "0" * 64), target="onnx", model=model)
        contenders = [Contender(DENSE, dense), Contender(PRUNED, pruned)]
        feeds = {"input/x:0": np.ones((1, 4), np.float32)}
        measurements = measure(contenders, feeds, blocks=6, processes=1, warmup_s=0.05, block_ms=2.0)
        page = render_report(
            ReportData(
                manifest=manifest.to_json(),
                plan=plan,
                verification=verification.to_json(),
                measurements=measurements.to_json(),
            )
        )
        writer.write_json(VERIFICATION, verification.to_json())
        writer.write_json(MEASUREMENTS, measurements.to_json())
        writer.write_text(REPORT, page)

    package = load_package(tmp_path / "out")
    assert package.measurements == measurements
    assert package.verification == verification
    assert "dense_onnxruntime" in page
    assert str(tmp_path) not in page
    documents = {name: json.loads((package.path / name).read_text()) for name in (VERIFICATION, MEASUREMENTS)}
    again = ReportData(
        manifest=package.manifest.to_json(),
        plan=package.plan,
        verification=documents[VERIFICATION],
        measurements=documents[MEASUREMENTS],
    )
    assert "cosine" in render_report(again)
