"""Recipes: the packaged ones are complete, a user's own is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunec import recipes
from prunec.criteria import create
from prunec.diagnostics import PrunecError
from prunec.recipes import Recipe


def test_the_packaged_recipes() -> None:
    known = "bn-scale fisher flap fpgm gblm l1 l2 lamp lrp obs random taylor wanda".split()
    assert recipes.names() == known
    assert recipes.load() == recipes.load("obs")
    assert (recipes.load().scope, recipes.load().compensation) == ("loss", "auto")


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_names_itself_its_source_and_a_criterion(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name and len(recipe.description) > 20 and "\n" not in recipe.description
    assert create(recipe.criterion).name == recipe.criterion
    assert recipe.paper or name == "random"


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("description: my own\ncriterion: wanda\nfloor: 0.5\n")
    expected = Recipe(name="mine", description="my own", criterion="wanda", floor=0.5)
    assert recipes.load(path) == recipes.load(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("description: x\ncriterion: l1\nscop: layer\n", "PC214", "'scop'"),
        ("description: x\ncriterion: l1\nscope: everywhere\n", "PC214", "'scope'"),
        ("description: x\ncriterion: l1\nfloor: 1.5\n", "PC214", "'floor'"),
        ("description: x\n", "PC214", "'criterion'"),
        ("description: x\ncriterion: l7\n", "PC203", "no criterion 'l7'"),
        ("just words\n", "PC214", "mapping"),
        ("a: [1\n", "PC214", "not YAML"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, text: str, code: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PrunecError) as caught:
        recipes.load(path)
    found = caught.value.diagnostic
    assert found.code == code and says in found.message and found.hint


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(PrunecError, match="no recipe 'wnda'") as caught:
        recipes.load("wnda")
    assert caught.value.diagnostic.code == "PC203" and "wanda" in (caught.value.diagnostic.hint or "")
    with pytest.raises(PrunecError, match="no such recipe file"):
        recipes.load("not/there.yaml")
