"""When zeros come while a network is trained, by name; one file per published schedule."""

from __future__ import annotations

import importlib

from prunec.catalog import unknown_name
from prunec.torch.schedules.base import Schedule

SCHEDULES = {
    "ast": "ast:AnnealedDecay",
    "gates": "gates:LearnedGates",
    "gmp": "gmp:Gradual",
    "granet": "granet:PruneAndRegrow",
    "imp": "imp:Rewinding",
    "mask-sparsity": "mask_sparsity:MaskSparsity",
    "one-shot": "one_shot:OneShot",
    "pdp": "pdp:SoftMasks",
}


def create(name: str, steps: int) -> Schedule:
    """The schedule with its defaults over `steps` optimiser steps. PrunecError PC203: there is none of that name."""
    if name not in SCHEDULES:
        raise unknown_name("PC203", "schedule", name, SCHEDULES)
    module, _, kind = SCHEDULES[name].partition(":")
    found: Schedule = getattr(importlib.import_module(f"prunec.torch.schedules.{module}"), kind)(steps)
    return found
