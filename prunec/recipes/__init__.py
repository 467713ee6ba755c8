"""Recipes: named combinations as YAML files, one per published system."""

from prunec.callable_package import make_callable
from prunec.recipes.loader import DEFAULT, Recipe, load, names

__all__ = ["DEFAULT", "Recipe", "load", "names"]

make_callable(__name__)  # prunec.recipes is also the public function
