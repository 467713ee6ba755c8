"""Data types and zeros for a time: what each layer takes in 8 bits and in float32, dense and with zeros.

int8    every layer that 8 bits do not hurt computes in 8 bits; only zeros are chosen, by times of int8 kernels
mixed   (float32 or int8) × (dense or a level of zeros) are the options of each layer in the same program

    loss = what its zeros lose + what 8 bits lose on it alone, if it has them (`passes.quantise.alone`)
    time = Σ own times + rate · elements that change between the types,   rate measured in place

The rate is what a model in which every other layer computes in float32 takes outside its layers, beyond the mean of the
two models without such borders. As for zeros alone, whole models say how the sum becomes a time, and what is chosen is
compiled and measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path as File

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.quantising import losses_in_8_bits
from prunec.api.target_list import MIXED
from prunec.api.timed import Rungs
from prunec.api.zero_ladders import Ladder, Option, frontier
from prunec.api.zero_timing import TimedZeros
from prunec.backends.base import Quantising
from prunec.frontend.calibration import Calibration
from prunec.measure.machine import describe_machine
from prunec.passes.quantise.borders import Border, borders, crossed
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from prunec.plan.budget import Budget
from prunec.plan.layers import DENSE
from prunec.plan.plan import LayerPlan, Plan, Precision, QuantisedPlan

FLOAT_LEVELS = (0.25, 0.5, 0.75, 0.875)
"""At which layers in float32 are timed beside those in 8 bits; interpolated in between."""
WHOLE = LayerPattern(parse("unstructured"), 0.0)
"""No zeros, in any layer."""
DIGITS = 4


class TimedPrecisions(TimedZeros):
    """Levels, and with `--precision mixed` data types, of all layers that have an 8-bit form.

    Raises:
        PrunecError PC225, PC45x: as `TimedZeros`; PC480, PC481, PC482: the model cannot be quantised.
    """

    def __init__(
        self, opened: Opened, dense: File, calibration: Calibration, options: PlanOptions, progress: Progress
    ) -> None:
        self._is_mixed = options.precision == MIXED
        self._borders: tuple[Border, ...] = ()
        self._border_ms = 0.0
        super().__init__(opened, dense, calibration, options, progress)

    @property
    def at_its_end(self) -> str:
        return f"{super().at_its_end}, in {'8 bits where that is faster' if self._is_mixed else '8 bits'},"

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        return super().describe(rungs, budget).model_copy(update={"precision": self._options.precision})

    def one_shot(self, rungs: Sequence[int]) -> ir.Model:
        return self._in_8_bits.written(super().one_shot(rungs), self._in_float(rungs))

    def quantised(self, number: int, rungs: Rungs) -> QuantisedPlan | None:
        name = self.cells[number]
        in_8_bits, in_float = (self._dense_ms[kind].get(name) for kind in ("int8", "float32"))
        if in_8_bits is None or in_float is None:
            return None
        saved = float(self._coefficients[1]) * (in_float - in_8_bits)
        return QuantisedPlan(loss=float(f"{self._in_8_bits.alone[name]:.4g}"), saved=round(saved, DIGITS))

    # -- tables -------------------------------------------------------------------------------------------------------
    def _make_ladders(self, names: Sequence[str], calibration: Calibration, progress: Progress) -> dict[str, Ladder]:
        """Of all layers that have an 8-bit form, and of others that can have zeros."""
        backend: object = self._backend
        assert isinstance(backend, Quantising)
        progress("weighing 8 bits", 0, 0)
        self._in_8_bits = losses_in_8_bits(self._opened, calibration, self._options, progress)
        able = tuple(self._in_8_bits.alone)
        self._whole = backend.leaving(())
        self._float = backend.leaving(able)
        self._dense_ms = {"int8": self._dense_times(self._whole, able), "float32": self._dense_times(self._float, able)}
        known = [name for name in able if all(name in own for own in self._dense_ms.values())]
        hurt = frozenset(self._in_8_bits.hurt)
        self._always_float = (hurt - {*able}) | ({*able} - {*known}) if self._is_mixed else hurt
        own_backend = backend.leaving(self._always_float)
        in_int8 = self._layer_times(own_backend, names, self._timed_levels, progress)
        losses = self._zero_losses(tuple(in_int8), calibration, progress)
        if not self._is_mixed:
            return self._same_everywhere(known, in_int8, losses)
        return self._either(known, names, in_int8, losses, progress)

    def _dense_times(self, backend: Quantising, names: Sequence[str]) -> dict[str, float]:
        """ms of the layers that have a kernel."""
        options = self._options
        wanted = dict.fromkeys(names, WHOLE)
        shapes = options.made_up_shapes or None
        model, threads = self._opened.canonical, options.threads
        (found,) = backend.layer_times(model, [wanted], threads, shapes, options.cache, lambda done, of: None)
        return {name: min(own.dense_us, own.sparse_us) / 1e3 for name, own in found.items()}

    def _same_everywhere(
        self, known: Sequence[str], times: Mapping[str, np.ndarray], losses: Mapping[str, np.ndarray]
    ) -> dict[str, Ladder]:
        """Zeros alone are chosen; what 8 bits lose is there at every rung, where losses are such of the outputs."""
        found: dict[str, Ladder] = {}
        for name in dict.fromkeys([*known, *times]):
            is_float = name in self._always_float or name not in self._in_8_bits.alone
            lost = 0.0 if is_float or self._spread is not None else self._in_8_bits.alone[name]
            kind: Precision = "float32" if is_float else "int8"
            if name not in times:
                found[name] = (Option(0.0, self._dense_ms[kind][name], lost, kind),)
                continue
            rows = zip((0.0, *self.levels), times[name], losses[name], strict=True)
            found[name] = tuple(Option(level, float(ms), float(loss) + lost, kind) for level, ms, loss in rows)
        return found

    def _either(
        self,
        known: Sequence[str],
        names: Sequence[str],
        in_int8: Mapping[str, np.ndarray],
        losses: Mapping[str, np.ndarray],
        progress: Progress,
    ) -> dict[str, Ladder]:
        """Both data types of every layer, from the dense one in float32 to the fastest among such neighbours."""
        levels = FLOAT_LEVELS if self._pattern.fixed_level is None else self._timed_levels
        in_float = self._layer_times(self._float, names, levels, progress)
        options: dict[str, list[Option]] = {}
        for name in dict.fromkeys([*known, *in_float]):
            able = name in known
            zeros = (0.0, *self.levels) if name in in_float and name in in_int8 else (0.0,)
            for number, level in enumerate(zeros):
                lost = float(losses[name][number]) if level else 0.0
                ms = float(in_float[name][number]) if name in in_float else self._dense_ms["float32"][name]
                options.setdefault(name, []).append(Option(level, ms, lost, "float32"))
                if able:
                    ms = float(in_int8[name][number]) if level else self._dense_ms["int8"][name]
                    options[name].append(Option(level, ms, lost + self._in_8_bits.alone[name], "int8"))
        self._borders = borders(self._opened.canonical, self._options.made_up_shapes)
        progress("timing conversions", 0, 0)
        self._border_ms = self._measured_border_ms(known)
        last = self._fastest(options)
        return {
            name: frontier(own[0], [o for o in own if o.ms >= last[name].ms or o is last[name]])
            for name, own in options.items()
        }

    def _measured_border_ms(self, names: Sequence[str]) -> float:
        """Of one element, remembered by what it depends on."""
        options = self._options
        shapes, machine = options.made_up_shapes or None, describe_machine().to_json()
        about = ["borders 2", self._opened.source.sha256, self._backend.provenance(), str(shapes), options.threads,
                 sorted(names), sorted(self._always_float)]  # fmt: skip
        key = hashlib.sha256(json.dumps([*about, machine], sort_keys=True).encode()).hexdigest()
        entry = None if options.cache is None else options.cache.read(key)
        if entry is not None:
            return float(entry[0]["ms"][0])
        model, apart = self._opened.canonical, frozenset(names[1::2])

        def between(backend: Quantising) -> float:
            return backend.between_us(model, names, options.threads, shapes)

        alternating = between(self._whole.leaving(self._always_float | apart))
        beyond = alternating - (between(self._whole) + between(self._float)) / 2
        elements = crossed(self._borders, frozenset(names) - apart) - crossed(self._borders, names) / 2
        found = max(beyond / elements, 0.0) / 1e3 if elements > 0 else 0.0
        if options.cache is not None:
            options.cache.write(key, {"ms": np.array([found])})
        return found

    def _fastest(self, options: Mapping[str, Sequence[Option]]) -> dict[str, Option]:
        """One option for each layer so that no single other one is faster, conversions included."""
        found = {name: min(own, key=lambda o: (o.precision != "int8", o.ms)) for name, own in options.items()}
        for _ in range(len(found)):
            before = dict(found)
            for name, own in options.items():
                found[name] = min(own, key=lambda o, name=name: o.ms + self._converted_ms({**found, name: o}))  # type: ignore[misc]
            if found == before:
                break
        return found

    # -- single choices -----------------------------------------------------------------------------------------------
    def _layer_ms(self, rungs: Sequence[int]) -> float:
        return super()._layer_ms(rungs) + (self._converted_ms(self._at(rungs)) if self._border_ms else 0.0)

    def _converted_ms(self, chosen: Mapping[str, Option]) -> float:
        in_8_bits = frozenset(name for name, option in chosen.items() if option.precision == "int8")
        return self._border_ms * crossed(self._borders, in_8_bits)

    def _in_float(self, rungs: Sequence[int]) -> frozenset[str]:
        chosen = frozenset(name for name, option in self._at(rungs).items() if option.precision == "float32")
        return self._always_float | chosen

    def _backend_at(self, rungs: Sequence[int]) -> Quantising:
        return self._whole.leaving(self._in_float(rungs))

    def _key(self, rungs: Sequence[int]) -> str:
        return json.dumps([super()._key(rungs), sorted(self._in_float(rungs))])

    def _planned(self, layer: LayerPlan, option: Option | None) -> LayerPlan:
        planned = super()._planned(layer, option)
        name = layer.node
        is_int8 = option.precision == "int8" if option is not None else name in self._in_8_bits.alone
        is_int8 = is_int8 and name not in self._always_float
        why = planned.why
        if name in self._in_8_bits.hurt and not is_int8:
            why = f"{why}; float32: {self._in_8_bits.hurt[name]}"
        elif option is not None and self._is_mixed and planned.pattern == DENSE and name in self._in_8_bits.alone:
            both = (f"{self._dense_ms[kind][name] * 1e3:.3g} µs in {kind}" for kind in ("int8", "float32"))
            why = f"{why}; dense {', '.join(both)}"
        return planned.model_copy(update={"precision": "int8" if is_int8 else "float32", "why": why})
