"""What may be removed, and in which order.

    depth        whole blocks: residual branches, and layers of a post-norm transformer (`graph.branches`)
    channels     channels, units, whole heads: exact cuts
    residual     the width of a stream that runs through norms over it (class C)
    experts      whole experts behind a softmax or a top-k (class C)
    head-width   the width of every head, or the inner axis of any other split

Each stage sees the model that the one before left; channels, residual and experts are one stage. A budget is shared
evenly: of k stages the first leaves the k-th root of what may remain, and so on, so that the last one meets the budget
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.plan.budget import Budget

Structure = Literal["depth", "channels", "residual", "experts", "head-width"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)
WIDTHS: frozenset[Structure] = frozenset(("channels", "residual", "experts"))
"""What the stage of channels cuts."""
DEFAULT_STRUCTURES: tuple[Structure, ...] = ("channels",)

StageName = Literal["depth", "channels", "head-width"]


def parse_structures(given: str | Sequence[str]) -> tuple[Structure, ...]:
    """Structures in the order of the stages, from a comma list or a sequence.

    Raises:
        PrunecError PC216: an unknown name, or none at all.
    """
    names = [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else list(given)
    for name in names:
        if name not in STRUCTURES:
            raise unknown_name("PC216", "structure", name, STRUCTURES)
    if not names:
        raise PrunecError("PC216", "no structure is named", where="--structures", hint=", ".join(STRUCTURES))
    return tuple(structure for structure in STRUCTURES if structure in names)


def stage_names(structures: Collection[str]) -> list[StageName]:
    """The stages that these structures need, in order."""
    wanted: dict[StageName, bool] = {
        "depth": "depth" in structures,
        "channels": bool(WIDTHS & set(structures)),
        "head-width": "head-width" in structures,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def check_budget(budget: Budget, structures: Collection[str]) -> None:
    """Refuse a budget whose unit not all the stages have.

    Raises:
        PrunecError PC217: shares of the prunable weights or of channels, over blocks or several stages; a size.
    """
    if budget.kind == "size-mb":
        message = "--size-mb is for channels alone"
        raise PrunecError("PC217", message, where=f"--structures {','.join(structures)}", hint="give --params")
    if budget.kind in ("sparsity", "channels") and stage_names(structures) not in (["channels"], ["head-width"]):
        raise PrunecError(
            "PC217",
            f"--{budget.kind} means something for one kind of channels only",
            where=f"--structures {','.join(structures)}",
            hint="give --flops or --params",
        )


def stage_budget(budget: Budget, number: int, count: int) -> Budget:
    """The budget of stage `number` (from 1) of `count`."""
    return budget if number == count else Budget.of(budget.kind, budget.value ** (number / count))
