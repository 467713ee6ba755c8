"""Recipes: named combinations as YAML files, one per published system."""

from prunec.callable_package import make_callable

make_callable(__name__)  # prunec.recipes is also the public function
