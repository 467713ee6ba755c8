"""A zoo model with its calibration data and its metric: what every quality table starts from."""

from __future__ import annotations

import sys
import time
from functools import cached_property

import onnx_ir as ir

import prunec.models as zoo
from prunec.api.opening import open_model
from prunec.api.pruning import runner
from prunec.api.sample_count import default_samples
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import open_calibration
from prunec.verify.user_metric import Metric, evaluate, load_metric


class Subject:
    """`metric` names the model's own number, `dense` is its value before pruning; `dense_values` has all numbers.

    `is_sparse`: as many samples by default as zeros are planned from.
    """

    def __init__(
        self,
        name: str,
        *,
        samples: int | None,
        test_samples: int | None,
        seed: int,
        threads: int = 1,
        is_sparse: bool = False,
    ) -> None:
        found = zoo.get(name, progress=lambda text: print(f"# {text}", file=sys.stderr))
        assert found.calib is not None and found.metric is not None, f"{name} has no data"
        self.name, self.found, self.seed, self.threads = name, found, seed, threads
        self.opened = open_model(found.path)
        canonical = self.opened.canonical
        self.calibration = open_calibration(
            found.calib, canonical, demanded=samples is not None, seed=seed,
            samples=samples or default_samples(canonical, found.calib, is_sparse=is_sparse),
        )  # fmt: skip
        self._evaluate, self._test_samples = load_metric(found.metric), test_samples
        self.dense_values = self.values(self.opened.source.model)
        self.metric, self.dense = next(iter(self.dense_values.items()))

    @cached_property
    def pass_seconds(self) -> float:
        """Processor time of the dense model over the calibration samples, without making them."""
        session = make_session(self.opened.source.model, threads=1)
        seconds = 0.0
        for batches in (self.calibration.fit(), self.calibration.held_out()):
            for feeds in batches:
                start = time.process_time()
                run(session, feeds)
                seconds += time.process_time() - start
        return seconds

    def judge(self, model: ir.Model) -> float:
        """The metric of a model on test data that calibration never saw."""
        return self.values(model)[self.metric]

    def numbers(self, metric: Metric, model: ir.Model) -> dict[str, float]:
        """All numbers of another metric, or of this one on other data."""
        return evaluate(metric, runner(model, self.threads), samples=None)

    def values(self, model: ir.Model) -> dict[str, float]:
        """All numbers of the metric, the primary one first."""
        return evaluate(self._evaluate, runner(model, self.threads), samples=self._test_samples)
