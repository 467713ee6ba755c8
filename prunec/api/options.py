"""The options that `plan` and `compile` share, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from prunec.api.opening import InputShapes
from prunec.api.target_list import INT8, MIXED, backend_for, check_target, patterns_of
from prunec.api.training_options import check_training
from prunec.cache import Cache
from prunec.catalog import BACKENDS, unknown_name
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Samples
from prunec.patterns import Pattern, parse
from prunec.plan.budget import Budget, BudgetKind
from prunec.plan.levels import ALLOCATIONS, DEFAULT_SOURCE, SOURCES, Source
from prunec.plan.permutation import orders_by_default
from prunec.plan.plan import Compensation, Scope, Solver
from prunec.plan.structures import DEFAULT_STRUCTURES, parse_structures
from prunec.recipes.loader import DEFAULT, Recipe, load

if TYPE_CHECKING:
    from prunec.backends.base import Timeable

CHANNELS = ("auto", "channel")
"""Patterns that remove whole channels."""
_BUDGET_HINT = (
    "say how much with one of --sparsity 0.5 (half of the prunable weights go), "
    "--flops 0.5 or --params 0.5 (at most half remain), --speedup 2, --latency-ms 5 or --max-drop 0.01 (measured here)"
)


@dataclass(frozen=True)
class PlanOptions:
    """What decides a plan. None means the recipe's value, or the default where there is no recipe.

    `trains_in_8_bits`: what is trained is quantised afterwards and trained again, for which some of the time is left.
    """

    target: str = "onnx"
    precision: str | None = None
    pattern: str = "auto"
    recipe: str | Path | None = None
    criterion: str | None = None
    scope: str | None = None
    sparsity: float | None = None
    flops: float | None = None
    params: float | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    calib: Samples = None
    samples: int | None = None
    seed: int = 0
    threads: int = 1
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    round_to: int | None = None
    structures: str | Sequence[str] | None = None
    solver: str | None = None
    allocation: str | None = None
    losses: str | None = None
    permute: bool | None = None
    finer: float | None = None
    polish: int = 0
    compensation: Compensation | None = None
    rounding: str | None = None
    recover: str | None = None
    recover_minutes: float | None = None
    trains_in_8_bits: bool = False
    recover_soup: int | None = None
    recover_precision: str | None = None
    steps: int | None = None
    input_shapes: InputShapes | None = field(default=None)
    measures: bool = True
    made_up_shapes: Mapping[str, Sequence[int]] | None = None
    cache: Cache | None = None

    def check(self) -> None:
        """Refuse what is wrong whatever the model is.

        Raises:
            PrunecError PC401: no such target; PC403: it has nothing for the pattern; PC215: no such pattern; PC203: no
            such solver; PC228: one whose result is no model; PC208: a number is out of range.
        """
        check_target(self.target)
        own = self._target_patterns()
        if own and self.pattern not in ("auto", *own):
            message = f"{self.target} has nothing for {self.pattern}, only for {', '.join(own)}"
            hint = f"leave --pattern out, which means {own[0]}; with --flops 0.7 channels go first"
            raise PrunecError("PC403", message, where="--pattern", hint=hint)
        is_sparse = self.sparse_pattern() is not None
        if self.solver == "armor":
            message = (
                "ARMOR leaves two block-diagonal factors beside each weight, dense products that no target here skips"
            )
            hint = "best gives the lowest error without them; passes.solve.armor computes the factors"
            raise PrunecError("PC228", message, where="--solver", hint=hint)
        if self.solver is not None and self.solver not in get_args(Solver):
            raise unknown_name("PC203", "solver", self.solver, get_args(Solver))
        if self.solver is not None and not is_sparse:
            raise PrunecError("PC208", "--solver is for sparsity patterns", where="--solver", hint="add --pattern 2:4")
        if self.allocation is not None and self.allocation not in ALLOCATIONS:
            raise unknown_name("PC203", "allocation", self.allocation, ALLOCATIONS)
        if self.allocation is not None and not is_sparse:
            message = "--allocation is for sparsity patterns; --scope says how a cut of channels is spread"
            raise PrunecError("PC208", message, where="--allocation", hint="add --pattern block:4x1")
        if self.losses is not None:
            self._check_losses(is_sparse=is_sparse)
        if self.precision == MIXED and self.allocation not in (None, "loss"):
            message = f"--allocation {self.allocation} knows zeros only, and data types are chosen beside them by loss"
            raise PrunecError("PC208", message, where="--allocation", hint="leave it out, or use --precision int8")
        if self.permute is not None and not is_sparse:
            message = "the order of channels matters to sparsity patterns only"
            raise PrunecError("PC208", message, where=self._permute_option(), hint="add --pattern 2:4")
        if self.scope is not None and self.scope not in get_args(Scope):
            hint = "layer, global or loss"
            raise PrunecError("PC208", f"there is no scope {self.scope!r}", where="--scope", hint=hint)
        if self.finer is not None:
            self._check_finer()
        for name, value in (("samples", self.samples), ("threads", self.threads)):
            if value is not None and value < 1:
                raise PrunecError("PC208", f"{value} is not a number of {name}", where=f"--{name}", hint="1 or more")
        if self.polish < 0:
            message = f"{self.polish} is no number of models to judge"
            raise PrunecError("PC208", message, where="--polish", hint="0 or more")
        if self.seed < 0:
            raise PrunecError("PC208", f"{self.seed} is not a seed", where="--seed", hint="0 or more")
        check_training(self)

    def _check_losses(self, *, is_sparse: bool) -> None:
        """Refuse a source of losses that is none, or where no layers are compared by losses of zeros. PC203, PC208."""
        assert self.losses is not None
        if self.losses not in SOURCES:
            raise unknown_name("PC203", "source of losses", self.losses, SOURCES)
        if not is_sparse:
            message = (
                "--losses is for sparsity patterns: what a cut of channels loses depends on the refit of all that read "
                "them, so no layer can be solved or changed for it alone"
            )
            raise PrunecError("PC208", message, where="--losses", hint="add --pattern block:16x1, or leave it out")
        if self.allocation not in (None, "loss"):
            message = f"--allocation {self.allocation} asks for no losses"
            raise PrunecError("PC208", message, where="--losses", hint="leave one of the two out")

    @property
    def loss_source(self) -> Source:
        """Where losses of single layers come from."""
        return DEFAULT_SOURCE if self.losses is None else cast(Source, self.losses)

    @property
    def in_steps(self) -> bool:
        """Whether the budget is reached little by little, with training in between."""
        return self.steps is not None and self.steps > 1

    def check_steps(self, budget: Budget | None) -> None:
        """Refuse steps towards what cannot be counted on the way. PrunecError PC220."""
        if not self.in_steps:
            return
        found, hint = None, ""
        if budget is not None and (budget.is_measured or budget.kind == "size-mb"):
            found = f"--{budget.kind} says nothing of how much goes on the way"
            hint = "give the size of the cut with --flops, --params or --sparsity, or leave --steps out"
        elif self.chosen_recipe().structures != DEFAULT_STRUCTURES:
            found = "only channels and zeros go step by step"
            hint = "leave --structures out, or --steps"
        elif self.sparse_pattern() is not None and self.permutes():
            found = "channels are reordered once, before anything goes"
            hint = "add --no-permute, or leave --steps out"
        if found is not None:
            raise PrunecError("PC220", found, where="--steps", hint=hint)

    def _target_patterns(self) -> tuple[str, ...]:
        """What the target is made for, the first by itself; nothing for a target that takes every pattern."""
        if self.target not in BACKENDS:
            return ()
        return patterns_of(self.target, self.precision)

    def _permute_option(self) -> str:
        return "--permute" if self.permute else "--no-permute"

    def permutes(self) -> bool:
        """Whether channels are reordered for the pattern: unless told otherwise, where the solver takes its time."""
        return orders_by_default(self.solver) if self.permute is None else self.permute

    def _check_finer(self) -> None:
        """Refuse finer blocks where no layer is timed, or times choose already. PrunecError PC208."""
        assert self.finer is not None
        found, hint = None, "0.1 takes finer blocks wherever a layer takes at most 10 % longer with them"
        if not 0 <= self.finer <= 1:
            found = f"{self.finer:g} is no share of a layer's time"
        elif not self._times_layers_here() or self.sparse_pattern() is None:
            found, hint = "only zeros for prunec's own kernels are timed layer by layer", "use --target cpu"
        elif not self.measures:
            found, hint = "it asks for the times of layers, and nothing is to be measured", "leave out --no-measure"
        elif self.allocation not in (None, "uniform"):
            found, hint = f"--allocation {self.allocation} compares layers in blocks of one shape", "leave it out"
        if found is not None:
            raise PrunecError("PC208", found, where="--finer", hint=hint)

    def sparse_pattern(self) -> Pattern | None:
        """The pattern of zeros that was asked for; None where whole channels go. PrunecError PC215."""
        own = self._target_patterns()
        pattern = own[0] if own and self.pattern == "auto" else self.pattern
        return None if pattern in CHANNELS else parse(pattern)

    def chosen_recipe(self) -> Recipe:
        """The recipe with the options that were given on top. Raises PrunecError PC203, PC214 and PC216."""
        recipe = load(self.recipe if self.recipe is not None else DEFAULT)
        structures = None if self.structures is None else parse_structures(self.structures)
        own = {"criterion": self.criterion, "scope": self.scope, "structures": structures,
               "compensation": self.compensation}  # fmt: skip
        return recipe.model_copy(update={key: value for key, value in own.items() if value is not None})

    def budget(self, *, max_drop: float | None = None) -> Budget | None:
        """The budget, checked, or None. Beside a pattern of zeros, --sparsity is the pattern's level.

        `max_drop` is the budget when it stands alone, and a gate beside another one.

        Raises:
            PrunecError PC220: two budgets; PC208: out of range, or losses that nothing reads; PC224: no level for the
            pattern; PC230: a measured budget for what is not timed.
        """
        pattern = self.sparse_pattern()
        measured = self._measured_budget(pattern, max_drop)
        if measured is not None:
            return measured
        level = None if pattern is None else pattern.mean_level(self.sparsity)
        if self.losses is not None and pattern is not None and level is not None:
            self._check_compared(pattern, level)
        goes = self.sparsity if pattern is None else None
        budgets: tuple[tuple[BudgetKind, float | None], ...] = (
            ("sparsity", goes), ("flops", self.flops), ("params", self.params), ("size-mb", self.size_mb),
        )  # fmt: skip
        given = [(kind, value) for kind, value in budgets if value is not None]
        if len(given) > 1:
            raise _two_budgets([kind for kind, _ in given])
        if given:
            return Budget.of(*given[0])
        if level is not None:
            self._check_cuts_nothing()
        return None if level is None else Budget.of("sparsity", level)

    def _measured_budget(self, pattern: Pattern | None, max_drop: float | None) -> Budget | None:
        """A budget of time, or one of quality where nothing else says how much goes. PC208, PC220, PC230."""
        times: tuple[tuple[BudgetKind, float | None], ...] = (
            ("speedup", self.speedup), ("latency-ms", self.latency_ms),
        )  # fmt: skip
        counted = {"sparsity": self.sparsity, "flops": self.flops, "params": self.params, "size-mb": self.size_mb}
        also = [name for name, value in counted.items() if value is not None]
        given = [(kind, value) for kind, value in times if value is not None]
        if self.polish and not given:
            message = "--polish swaps what costs the same time, so it goes with a budget of time"
            raise PrunecError("PC220", message, where="--polish", hint="add --speedup or --latency-ms, or leave it out")
        if given and len(given) + len(also) > 1:
            raise _two_budgets([*(kind for kind, _ in given), *also])
        has_level = pattern is not None and pattern.fixed_level is not None and self._timeable() is None
        if not given and max_drop is not None and not also and not has_level:
            given = [("max-drop", max_drop)]
        if not given:
            return None
        self.check_measured(given[0][0])
        if self.finer is not None:
            message = f"--{given[0][0]} chooses a level for each layer, all in blocks of one shape"
            raise PrunecError("PC208", message, where="--finer", hint="leave it out, or give --sparsity")
        if pattern is not None:
            self._check_cuts_nothing()
        return Budget.of(*given[0])

    def _check_compared(self, pattern: Pattern, level: float) -> None:
        """Refuse losses that nothing reads: without a budget of time, zeros are spread evenly. PrunecError PC208."""
        fixed = pattern.fixed_level
        if self.allocation == "loss" if fixed is None else level < fixed - 1e-9:
            return
        why = "every layer gets the same share" if fixed is None else f"every layer gets {pattern.name}"
        hint = "add --allocation loss, or a budget of time" if fixed is None else "give a --sparsity below it"
        raise PrunecError("PC208", f"no losses are compared: {why}", where="--losses", hint=hint)

    def _timeable(self) -> Timeable | None:
        """The target, where its models have times while a plan is made."""
        from prunec.backends.base import Quantising, Timeable

        backend = backend_for(self.target, self.precision)
        kind = Timeable if self.precision not in (INT8, MIXED) else Quantising
        return backend if isinstance(backend, kind) else None

    def _times_layers_here(self) -> bool:
        """Whether `Backend.times` are measured, and not those of a model."""
        backend = self._timeable()
        return backend is not None and not backend.models_times

    def check_measured(self, kind: str) -> None:
        """Refuse a budget that is met by times where there are none. PrunecError PC230; PC440, PC45x: not here."""
        structures, is_sparse = self.chosen_recipe().structures, self.sparse_pattern() is not None
        found = None
        hint = "give --flops or --params, or use --target onnx with --pattern channel"
        backend = self._timeable()
        if self.target != "onnx" and backend is None:
            where = self.target if self.precision is None else f"{self.target} in {self.precision}"
            found = f"for target {where} times are not known before the artifact is built"
            if is_sparse and self.precision in (INT8, MIXED):
                hint = "give --sparsity 0.5, or use --target cpu, where 8 bits are timed"
        elif self.target != "onnx" and not is_sparse:
            found = f"for {self.target} times are known of zeros, not of widths"
            hint = f"use a pattern of zeros, --pattern {self._target_patterns()[0]}"
        elif self.target == "onnx" and is_sparse:
            found = f"zeros ({self.pattern}) save no time in ONNX Runtime"
            hint = "leave --pattern out, or use --target cpu with a pattern of blocks"
        elif structures != DEFAULT_STRUCTURES and (is_sparse or structures != ("depth", "channels")):
            found = f"of {', '.join(structures)} only channels are timed, and whole blocks beside them"
        if found is not None:
            what = "channels and target onnx, or zeros and a target with kernels of prunec's"
            raise PrunecError("PC230", f"--{kind} is for {what}: {found}", hint=hint)
        if backend is not None:
            backend.check_timed(self.threads)

    def _check_cuts_nothing(self) -> None:
        """Refuse options about a cut where only zeros are asked for. PrunecError PC220."""
        about = {"structures": self.structures, "criterion": self.criterion, "scope": self.scope,
                 "round-to": self.round_to}  # fmt: skip
        given = [f"--{name}" for name, value in about.items() if value is not None]
        if given:
            message = f"{given[0]} is about what is cut, and beside a pattern nothing says how much of it goes"
            raise PrunecError("PC220", message, where=given[0], hint="add --flops 0.7 or --params 0.7, or leave it out")

    def check_replay(self) -> None:
        """Refuse options that a plan file has decided already. PrunecError PC221."""
        decided = {
            "sparsity": self.sparsity, "flops": self.flops, "params": self.params, "speedup": self.speedup,
            "latency-ms": self.latency_ms, "size-mb": self.size_mb, "criterion": self.criterion,
            "scope": self.scope, "include": self.include or None, "exclude": self.exclude or None,
            "round-to": self.round_to, "structures": self.structures, "solver": self.solver,
            "allocation": self.allocation, "losses": self.losses, "finer": self.finer, "polish": self.polish or None,
            "steps": self.steps,
            "pattern": None if self.pattern in CHANNELS else self.pattern,
        }  # fmt: skip
        given = [f"--{name}" for name, value in decided.items() if value is not None]
        given += [] if self.permute is None else [self._permute_option()]
        if given:
            message = f"the plan has decided what goes: {', '.join(given)} cannot be given beside --plan"
            hint = "edit the plan file, or leave --plan out"
            raise PrunecError("PC221", message, where="--plan", hint=hint)

    def required_budget(self, *, max_drop: float | None = None) -> Budget:
        """The budget. PC220 where there is none."""
        budget = self.budget(max_drop=max_drop)
        if budget is None:
            raise PrunecError("PC220", "nothing says how much to prune", hint=_BUDGET_HINT)
        return budget


def _two_budgets(kinds: Sequence[str]) -> PrunecError:
    names = " and ".join(f"--{kind}" for kind in kinds)
    return PrunecError("PC220", f"{names} cannot both be met exactly", hint="give one of them")
