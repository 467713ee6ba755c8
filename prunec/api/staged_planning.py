"""Plan several structures, or others than channels: one stage after the other, each under its share of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.scoring import scored
from prunec.api.stages import Stage, analyse_channels, base_model, cut, realised_shares, remove
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis
from prunec.graph.branches import Block, find_blocks, live_nodes
from prunec.graph.head_width import analyse_widths
from prunec.plan.budget import WORDS, Budget
from prunec.plan.depth import choose_blocks
from prunec.plan.fingerprint import fingerprint
from prunec.plan.plan import BlockPlan, Plan, WidthPlan
from prunec.plan.planner import FLOORS
from prunec.plan.rounding import step_for
from prunec.plan.shares import baseline_cost
from prunec.plan.structures import check_budget, stage_budget, stage_names
from prunec.statistics.block_errors import BlockErrors
from prunec.statistics.output_errors import sample_count


def make_staged(
    opened: Opened, calibration: Calibration, options: PlanOptions, budget: Budget, progress: Progress
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """The plan, and what the criterion had to say.

    Raises:
        PrunecError PC217: the budget does not fit the structures; PC218: there is no block; PC206 to PC211.
    """
    planner = _Planner(opened, calibration, options, progress)
    check_budget(budget, planner.structures)
    names = stage_names(planner.structures)
    for number, name in enumerate(names, 1):
        share, is_last = stage_budget(budget, number, len(names)), number == len(names)
        if name == "depth":
            planner.plan_depth(share, is_last=is_last)
        elif name == "channels":
            planner.plan_channels(share, is_last=is_last)
        else:
            planner.plan_widths(share, is_last=is_last)
    return planner.plan(budget), tuple(planner.notes)


class _Planner:
    """Collects the parts of a plan; `model` is what the stages so far have left."""

    def __init__(self, opened: Opened, calibration: Calibration, options: PlanOptions, progress: Progress) -> None:
        self.opened, self.calibration, self.options, self.progress = opened, calibration, options, progress
        self.recipe = options.chosen_recipe()
        self.structures = self.recipe.structures
        self.model = base_model(opened, self.structures)
        self.stages: list[Stage] = []
        self.blocks: list[BlockPlan] = []
        self.channels: Plan | None = None
        self.widths: Plan | None = None
        self.notes: list[Diagnostic] = []

    def plan_depth(self, budget: Budget, *, is_last: bool) -> None:
        blocks = wanted_blocks(self.model, self.options)
        self.progress("measuring blocks", 0, len(blocks))
        done = 0
        samples = sample_count(self.model, self.calibration, len(blocks))
        measured = BlockErrors(self.model, blocks, self.calibration, samples, threads=self.options.threads)

        def errors(removed: Sequence[Block]) -> float:
            nonlocal done
            done += 1
            self.progress("measuring blocks", min(done, len(blocks)), len(blocks))
            return measured.error(removed)

        dense = baseline_cost(self.opened.canonical, ())
        chosen, is_met = choose_blocks(self.model, blocks, errors, budget, dense)
        if not is_met and is_last:
            stage = remove(self.model, [block for block, _ in chosen])
            left = budget.remaining(baseline_cost(stage.after, ()), dense)
            most = f"at most {1 - left:.1%} of the {WORDS[budget.kind]} can be removed here"
            raise PrunecError(
                "PC207",
                f"{most}, with all {len(chosen)} blocks that may go",
                where=f"--{budget.kind} {budget.value:g}",
                hint="ask for less, or add --structures depth,channels",
            )
        self.blocks = [BlockPlan(name=block.name, kind=block.kind, error=round(alone, 6)) for block, alone in chosen]
        self._add(remove(self.model, [block for block, _ in chosen]))

    def plan_channels(self, budget: Budget, *, is_last: bool) -> None:
        analysis = analyse_channels(self.opened, self.model, self.structures)
        self.channels = self._cut("channels", analysis, budget, is_last)
        self._add(cut("channels", self.model, analysis, analysis.alive(self.channels.keeps())))

    def plan_widths(self, budget: Budget, *, is_last: bool) -> None:
        analysis = analyse_widths(self.model)
        self.widths = self._cut("head widths", analysis, budget, is_last)
        self._add(cut("head-width", self.model, analysis, analysis.alive(self.widths.keeps())))

    def _add(self, stage: Stage) -> None:
        self.stages.append(stage)
        self.model = stage.after

    def _cut(self, what: str, analysis: Analysis, budget: Budget, is_last: bool) -> Plan:
        planner = scored(
            self.opened, self.model, analysis, self.calibration, self.options, self.progress, what=what,
            baseline=self.opened.canonical,
        )  # fmt: skip
        made = planner.least_cut(budget, is_last=is_last)
        self.notes += planner.notes
        return made

    def plan(self, budget: Budget) -> Plan:
        """All parts together."""
        options, recipe = self.options, self.recipe
        about = (self.opened.canonical, self.opened.analysis)
        return Plan(
            source_sha256=self.opened.source.sha256,
            fingerprint=fingerprint(*about) if self.channels is None else self.channels.fingerprint,
            target=options.target,
            criterion=recipe.criterion,
            normalise=recipe.normalise,
            scope=recipe.scope,
            seed=options.seed,
            budget=budget,
            rounding=step_for(options.target, options.round_to),
            floor=FLOORS[recipe.scope] if recipe.floor is None else recipe.floor,
            include=tuple(options.include),
            exclude=tuple(options.exclude),
            structures=self.structures,
            depth=tuple(self.blocks),
            groups=() if self.channels is None else self.channels.groups,
            head_width=None
            if self.widths is None
            else WidthPlan(fingerprint=self.widths.fingerprint, groups=self.widths.groups),
            realised=realised_shares(self.opened, self.stages),
            notes=tuple(dict.fromkeys(str(note) for note in self.notes)),
        )


def wanted_blocks(model: ir.Model, options: PlanOptions) -> list[Block]:
    """Blocks of which the user's patterns allow every node to go.

    Raises:
        PrunecError PC218: there is none.
    """
    found = find_blocks(model)
    blocks = [block for block in found if _is_wanted(model, block, options)]
    if not blocks:
        why = f"none of the {len(found)} residual blocks may be removed" if found else "it has no residual block"
        raise PrunecError(
            "PC218", f"no block of this model can be removed: {why}", where="--structures depth",
            hint="include more, or exclude less" if found else "leave depth out: prune channels instead",
        )  # fmt: skip
    return blocks


def _is_wanted(model: ir.Model, block: Block, options: PlanOptions) -> bool:
    stays = set(live_nodes(model, [block]))
    gone = [node.name or "" for node in model.graph if node not in stays]

    def touches(pattern: str) -> bool:
        return any(name == pattern or fnmatchcase(name, pattern) for name in (block.name, *gone))

    return (not options.include or any(map(touches, options.include))) and not any(map(touches, options.exclude))
