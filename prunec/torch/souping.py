"""`prunec.torch.soup`: the mean of several trainings of one pruned module, kept only as far as it is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from prunec.diagnostics import PrunecError
from prunec.recover.soup import Soup, State, greedy


def soup(
    module: torch.nn.Module,
    states: Sequence[Mapping[str, torch.Tensor]],
    judge: Callable[[torch.nn.Module], float],
    masks: Mapping[str, torch.Tensor] | None = None,
) -> Soup:
    """Load the greedy mean of `states` (each a `state_dict()` of `module`) into `module`; see `prunec.recover.soup`.

    `judge`: the error of the module as it is, on data that nothing was trained on; smaller is better. `masks`: zeros
    that all states have to share, as in `Sparsifier.masks` and `PrunedModule.masks`.

    Raises:
        PrunecError PC047: no states, states of other shapes, or a zero that one of them does not have.
    """
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for number, state in enumerate(states):
        if {name: tuple(tensor.shape) for name, tensor in state.items()} != own:
            raise _apart(f"state {number} is not one of this module")
        for name, mask in (masks or {}).items():
            if bool((state[name][~mask.to(state[name].device)] != 0).any()):
                raise _apart(f"state {number} has lost zeros of {name}")
    if not states:
        raise _apart("there is nothing to take the mean of")

    def error(state: State) -> float:
        module.load_state_dict(dict(state))
        return float(judge(module))

    found = greedy(states, [error(state) for state in states], error)
    module.load_state_dict(found.state)
    return found


def _apart(message: str) -> PrunecError:
    hint = "train copies of one pruned module whose zeros are held, and pass their state_dict()"
    return PrunecError("PC047", message, where="soup", hint=hint)
