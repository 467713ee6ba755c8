"""Choices judged as a compile would: cut or with zeros, refitted, in 8 bits, compared with the dense model."""

from __future__ import annotations

import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.patterning import sparsifier
from prunec.api.pruning import Judged, judge
from prunec.api.quantising import as_planned_in_8_bits
from prunec.api.refitting import refit
from prunec.api.stages import stages_of
from prunec.frontend.calibration import Calibration
from prunec.passes.compensate import Options
from prunec.plan.plan import DropPlan, Plan
from prunec.verify.records import QualityRecord

DIGITS = 6


class Judge:
    """`own` is the user's metric, without which agreement on held-out data decides."""

    def __init__(self, opened: Opened, calibration: Calibration, options: PlanOptions, own: Judged | None) -> None:
        self._opened, self._calibration, self._options, self._own = opened, calibration, options, own

    def model(self, plan: Plan) -> ir.Model:
        """What a compile of `plan` makes."""
        method = self._options.chosen_recipe().compensation
        steps = stages_of(self._opened, plan)
        model = steps[-1].after
        solver = sparsifier(plan, model)
        if method != "none" or solver is not None:
            how = Options(method=method, seed=self._options.seed, threads=self._options.threads)
            model = refit(steps, self._calibration, how, None, solver, self._options.cache).model
        if plan.precision is None:
            return model
        return as_planned_in_8_bits(self._opened, steps, model, plan, self._calibration, self._options)

    def quality(self, plan: Plan) -> QualityRecord | None:
        """Of that model; None where the data shows nothing. PrunecError PC351."""
        return self.of(self.model(plan))

    def of(self, model: ir.Model) -> QualityRecord | None:
        """Quality of any model in the place of the dense one. PrunecError PC351."""
        return judge(self._opened, model, self._calibration, self._options, self._own, is_bounded=True)


def with_drop(plan: Plan, quality: QualityRecord, trials: int) -> Plan:
    """`plan` with what was found out about its quality, `trials` models having been judged."""
    upper = None if quality.drop_upper is None else round(quality.drop_upper, DIGITS)
    own = DropPlan(
        metric=quality.metric, drop=round(quality.drop, DIGITS), upper=upper, data=quality.data,
        samples=quality.samples, trials=trials,
    )  # fmt: skip
    return plan.model_copy(update={"drop": own})
