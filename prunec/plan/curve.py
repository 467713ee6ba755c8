"""A curve of quality against time: plans of one model from mild to deep, and the folder that they are kept in.

FOLDER/curve.json       what the curve is of, and a line for every point
FOLDER/point-1.json …   the plans; the highest number is the fastest
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from prunec.diagnostics import PrunecError
from prunec.plan.plan import Plan

CURVE = "curve.json"


class Question(BaseModel):
    """What a curve is of. Points answer the same question or they are no curve. `options`: what else decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_sha256: str
    target: str
    points: int
    threads: int
    machine: str
    options: dict[str, str]


class Curve:
    """The points that are done, by number. `shares`: the share of the dense time that each is to take, mild to deep."""

    def __init__(self, folder: Path, question: Question, shares: Sequence[float], plans: dict[int, Plan]) -> None:
        self.folder, self.question = folder, question
        self.shares, self.plans = tuple(shares), plans

    @classmethod
    def begin(cls, folder: Path, question: Question, shares: Sequence[float]) -> Curve:
        folder.mkdir(parents=True, exist_ok=True)
        curve = cls(folder, question, shares, {})
        curve._write()
        return curve

    @classmethod
    def load(cls, folder: Path) -> Curve:
        """The curve in `folder`, whole or not.

        Raises:
            PrunecError PC232: there is none, or it cannot be read; PC204: a plan of it is damaged.
        """
        path = folder / CURVE
        try:
            document = json.loads(path.read_bytes())
            question, shares = Question.model_validate(document["question"]), [float(s) for s in document["shares"]]
        except OSError as error:
            message = f"there is no curve: {error.strerror}"
            raise PrunecError(
                "PC232", message, where=str(path), hint="prunec plan MODEL --sweep 6 -o FOLDER"
            ) from error
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            hint = "remove the folder and sweep again"
            raise PrunecError("PC232", "this is not the file of a curve", where=str(path), hint=hint) from error
        found = {n: _point(folder, n) for n in range(1, len(shares) + 1)}
        return cls(folder, question, shares, {n: Plan.load(path) for n, path in found.items() if path.is_file()})

    @property
    def is_whole(self) -> bool:
        return len(self.plans) == len(self.shares)

    def add(self, number: int, plan: Plan) -> None:
        """Write a point down: whoever interrupts the sweep keeps it."""
        plan.save(_point(self.folder, number))
        self.plans[number] = plan
        self._write()

    def pick(self, number: int) -> Plan:
        """The plan of a point. PrunecError PC232 where there is none."""
        if number not in self.plans:
            there = ", ".join(map(str, sorted(self.plans))) or "none yet"
            raise PrunecError("PC232", f"the curve has no point {number}", where="--pick", hint=f"it has {there}")
        return self.plans[number]

    @property
    def modelled_for(self) -> str | None:
        """The machine whose times they are, where nothing was measured."""
        times = [plan.time for plan in self.plans.values() if plan.time is not None and plan.time.modelled]
        return times[0].machine if times else None

    @property
    def is_sparse(self) -> bool:
        """Whether zeros were chosen, and not widths."""
        return any(plan.layers for plan in self.plans.values())

    def best(self) -> set[int]:
        """Points that no other one beats in both: faster, and no larger drop."""
        known = {n: (plan.time.share, plan.drop.drop) for n, plan in self.plans.items() if plan.time and plan.drop}
        return {
            n
            for n, (time, drop) in known.items()
            if not any((t <= time and d <= drop) and (t < time or d < drop) for m, (t, d) in known.items() if m != n)
        }

    def to_json(self) -> dict[str, Any]:
        best = self.best()
        return {
            "schema_version": 1,
            "question": self.question.model_dump(mode="json"),
            "shares": list(self.shares),
            "points": [_row(n, plan, n in best) for n, plan in sorted(self.plans.items())],
        }

    def _write(self) -> None:
        partial = self.folder / f".{CURVE}"
        partial.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        partial.replace(self.folder / CURVE)


def _point(folder: Path, number: int) -> Path:
    return folder / f"point-{number}.json"


def _row(number: int, plan: Plan, is_best: bool) -> dict[str, Any]:
    """What is not known is absent."""
    row: dict[str, Any] = {"number": number, "plan": _point(Path(), number).name, "best": is_best}
    if plan.time is not None:
        low, high = plan.time.ci95
        row["speedup"] = {"median": 1 / plan.time.share}
        if plan.time.modelled:
            row["modelled_for"] = plan.time.machine
        else:
            row["speedup"]["ci95"] = [1 / high, 1 / low]
        row["ms"] = plan.time.share * plan.time.dense_ms
        row["predicted_share"] = plan.time.predicted
    if plan.drop is not None:
        own = plan.drop.model_dump(mode="json")
        row["quality"] = {key: value for key, value in own.items() if value is not None}
    if plan.layers:
        row["zeros"] = plan.level
    row["realised"] = plan.realised.model_dump(mode="json")
    return row
