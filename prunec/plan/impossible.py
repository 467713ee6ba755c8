"""Why a budget cannot be met, in the words of whoever asked for it."""

from __future__ import annotations

import math
from collections import defaultdict

from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.plan.allocate import Path
from prunec.plan.budget import WORDS, Budget
from prunec.plan.cost_model import Cost, CostModel
from prunec.plan.select import Selection

_NOTHING = "prunec inspect shows what pins each group; --structures names what may go, channels among them"


def impossible(
    budget: Budget, path: Path, selection: Selection, costs: CostModel, dense: Cost, *, floor: float, step: int
) -> PrunecError:
    """PC207: the most that can go, what holds the rest, and the nearest budget that works."""
    left = path.share_kept(len(path))
    if budget.kind != "channels":
        left = budget.remaining(costs.evaluate(path.alive(len(path))), dense)
    most = math.floor((1 - left) * 1000) / 10
    reasons = _reasons(path, selection, floor, step)
    message = f"at most {most:g} % of the {WORDS[budget.kind]} can be removed here, because {' and '.join(reasons)}"
    return PrunecError("PC207", message, where=f"--{budget.kind} {budget.value:g}", hint=_hint(budget, left, selection))


def nothing_goes(path: Path, selection: Selection, *, floor: float, step: int) -> PrunecError:
    """PC207 where not a single channel may go, whatever the budget."""
    return PrunecError(
        "PC207",
        f"nothing can be cut here, because {' and '.join(_reasons(path, selection, floor, step))}",
        hint=_NOTHING,
    )


def too_large(budget: Budget, left: float, floor: float) -> PrunecError:
    """PC207 for a size in megabytes: what is left when everything that may go is gone."""
    message = f"with every group at its least width ({floor:.0%} of it) the model has {left:.3g} MB, not less"
    hint = f"--size-mb {math.ceil(left * 1000) / 1000:g} can be met; prunec inspect shows what pins each group"
    return PrunecError("PC207", message, where=f"--size-mb {budget.value:g}", hint=hint)


def _reasons(path: Path, selection: Selection, floor: float, step: int) -> list[str]:
    reasons = []
    if selection.groups:
        multiples = f" in multiples of {step} (narrow ones {step // 2})" if step > 1 else ""
        reasons.append(f"every group keeps at least {floor:.0%} of its channels{multiples}")
    pinned = _pinned(path.analysis)
    if pinned:
        reasons.append(pinned)
    if selection.excluded:
        share = sum(group.cost_share for group in selection.excluded)
        reasons.append(f"{len(selection.excluded)} groups with {share:.0%} of the cost are excluded")
    return reasons or ["the model has nothing of the kind that may go"]


def _pinned(analysis: Analysis) -> str:
    """How much of the cost is in groups that cannot be cut, and the reason that accounts for most of it."""
    cost: dict[str, float] = defaultdict(float)
    for group in analysis.groups:
        if group.pinned is not None:
            cost[f"{group.pinned.node} {group.pinned.reason}"] += group.cost_share
    if not cost:
        return ""
    worst = max(cost, key=lambda reason: cost[reason])
    number = sum(group.pinned is not None for group in analysis.groups)
    share = f"{number} of {len(analysis.groups)} groups with {sum(cost.values()):.0%} of the cost"
    return f"{share} are pinned (first: {worst})"


def _hint(budget: Budget, left: float, selection: Selection) -> str:
    goes = budget.kind in ("sparsity", "channels")
    nearest = math.floor((1 - left) * 1000) / 1000 if goes else math.ceil(left * 1000) / 1000
    if left >= 1:
        return _NOTHING
    also = "; or exclude less" if selection.excluded else ""
    return f"--{budget.kind} {nearest:g} can be met{also}"
