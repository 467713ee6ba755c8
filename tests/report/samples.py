"""A report's input with any number of layers, as a real compile would fill it."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunec.diagnostics import Diagnostic
from prunec.measure.ratio import ratio
from prunec.report.data import ReportData


def sample(
    layers: int, *, contenders: int = 2, name: str = "resnet18.onnx", layer_name: str | None = None
) -> ReportData:
    """`layers` convolutions, half of them cut by about half; timings with a tail; one synthetic-data warning."""
    rng = np.random.default_rng(layers)
    costs: list[dict[str, Any]] = []
    for index in range(layers):
        macs = int(rng.integers(2_000_000, 200_000_000))
        share = float(rng.uniform(0.2, 0.9)) if index % 3 else 1.0
        costs.append(
            {
                "name": layer_name or f"/layer{index // 8}/layer{index // 8}.{index % 8}/conv{index % 2 + 1}/Conv",
                "op": "Conv",
                "macs_before": macs,
                "macs_after": int(macs * share),
                "params_before": macs // 196,
                "params_after": int(macs // 196 * share),
                "cut": 1 - share,
            }
        )
    names = ["dense_onnxruntime", "pruned_onnxruntime", "prunec", "prunec_dense"][:contenders]
    blocks = {
        name: tuple(base * (1 + 0.02 * rng.gamma(2.0, size=30)))
        for name, base in zip(names, (20.4, 11.3, 7.2, 19.0), strict=False)
    }
    subject = "prunec" if "prunec" in names else names[-1]
    group_names = [f"g{index}" for index in range(max(1, layers // 2))]
    return ReportData(
        manifest={
            "schema_version": 1,
            "source": {"name": name, "sha256": "ab" * 32},
            "target": "onnx",
            "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 224, 224]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 1000]}],
            "plan_sha256": "cd" * 32,
            "files": {
                "model.onnx": {"sha256": "ef" * 32, "bytes": 24_900_000},
                "plan.json": {"sha256": "12" * 32, "bytes": 8123},
            },
            "tools": {"prunec": "0.1.0", "python": "3.11.15", "onnxruntime": "1.31.1", "numpy": "2.4.6"},
        },
        plan={
            "target": "onnx",
            "pattern": "channel",
            "criterion": "second-order",
            "seed": 0,
            "budget": {"kind": "flops", "value": 0.5},
            "groups": [{"id": group, "size": 64, "kept": 20 + index % 40} for index, group in enumerate(group_names)],
            "requested": 0.5,
            "realised": 0.497,
        },
        verification={
            "exactness": {
                "class_a_max_rel": 3.1e-7,
                "groups_checked": len(group_names),
                "passed": True,
                "tolerance": 1e-4,
                "groups": [
                    {"id": group, "kind": "A", "max_rel": 1e-7 * (1 + index % 3), "passed": True}
                    for index, group in enumerate(group_names)
                ],
            },
            "quality": {
                "metric": "top-1 agreement",
                "dense": 1.0,
                "pruned": 0.953,
                "drop": 0.047,
                "data": "synthetic",
                "samples": 256,
                "others": {"cosine": 0.9871, "relative error": 0.161},
            },
            "sparsity": {"requested": 0.5, "realised_params": 0.48, "realised_flops": 0.497},
            "compensation": [
                {
                    "layer": cost["name"],
                    "method": "least-squares" if index % 4 else "none",
                    "error_before": 0.31,
                    "error_after": 0.12 if index % 4 else 0.31,
                }
                for index, cost in enumerate(costs)
                if index % 3
            ],
        },
        measurements={
            "machine": {
                "cpu": "Intel(R) Xeon(R) Processor @ 2.50GHz",
                "logical_cpus": 2,
                "cores": 2,
                "isa": ["avx2", "fma", "avx512f"],
                "memory_gib": 23.5,
                "os": "Linux 6.1 x86_64",
                "versions": {"python": "3.11.15", "onnxruntime": "1.31.1"},
            },
            "protocol": {
                "subject": subject,
                "threads": 1,
                "pinned_cpus": [1],
                "inputs": {"input": {"shape": [1, 3, 224, 224], "dtype": "float32"}},
                "order": "separate processes, interleaved A B B A, the others stopped",
                "warmup_s": 0.5,
                "processes": 5,
                "blocks": 30,
                "runs_per_block": dict.fromkeys(names, 1),
                "untimed_runs_per_block": dict.fromkeys(names, 1),
                "statistic": "median over the paired ratios of block medians",
                "interval": "95 % percentile bootstrap over the pairs, 10000 resamples",
                "seed": 0,
                "load_average_1min": 0.21,
            },
            "contenders": {
                name: {
                    "p50_ms": float(np.median(values)),
                    "p90_ms": float(np.percentile(values, 90)),
                    "first_run_ms": 31.0,
                    "load_ms": 120.5,
                    "peak_rss_mib": 181.0,
                }
                for name, values in blocks.items()
            },
            "speedup": {
                f"vs_{name}": ratio([blocks[name]], [blocks[subject]], seed=0).to_json()
                for name in names
                if name != subject
            },
            "distributions": {name: list(values) for name, values in blocks.items()},
        },
        layers=costs,
        warnings=(
            Diagnostic(
                "PC301",
                "no calibration data was given, so inputs are synthetic",
                "--calib",
                "give a few hundred real inputs: --calib FILE.npz",
            ),
        ),
        command=f"prunec compile {name} --target onnx --pattern channel --flops 0.5 --seed 0 -o out",
        bytes_before=46_800_000,
        bytes_after=24_900_000,
    )
