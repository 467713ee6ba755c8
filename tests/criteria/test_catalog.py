"""Catalogue tables: every row loads, unknown names are refused with help, clashes are refused."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from prunec import catalog
from prunec.catalog import Catalogue, criteria
from prunec.criteria import create
from prunec.diagnostics import PrunecError


def points(*pairs: tuple[str, str]) -> tuple[EntryPoint, ...]:
    return tuple(EntryPoint(name, value, "prunec.criteria") for name, value in pairs)


@pytest.mark.parametrize("name", sorted(catalog.CRITERIA))
def test_every_row_loads_and_bears_its_name(name: str) -> None:
    assert create(name).name == name


def test_an_unknown_name_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(PrunecError, match="activation, bn-scale") as caught:
        criteria.load("wnada")
    assert caught.value.diagnostic.code == "PC203" and caught.value.diagnostic.hint == "did you mean wanda?"


def test_an_entry_point_adds_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_installed", lambda group: points(("mine", "prunec.criteria.lamp:Lamp")))
    assert "mine" in criteria.names() and criteria.load("mine").name == "lamp"


def test_two_owners_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_installed", lambda group: points(("l1", "elsewhere.scores:L1")))
    with pytest.raises(PrunecError, match=r"elsewhere\.scores:L1") as caught:
        criteria.load("l2")
    assert caught.value.diagnostic.code == "PC213" and "rename" in (caught.value.diagnostic.hint or "")


@pytest.mark.parametrize("target", ["no_such_module:Thing", "prunec.criteria.lamp:NoSuchClass"])
def test_a_row_that_points_nowhere_is_an_error_with_its_target(target: str) -> None:
    with pytest.raises(PrunecError, match="cannot be loaded") as caught:
        Catalogue("criterion", {"broken": target}, "prunec.none").load("broken")
    assert caught.value.diagnostic.code == "PC213" and caught.value.diagnostic.where == target
