"""Read recipes: the packaged ones by name, a user's own by path.

A recipe says how to choose (criterion, scope, normalise, floor) and how to make up for what went (compensation), and
which structures may go (`plan.structures`). How much goes is the budget's business, on the command line.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prunec.catalog import criteria, unknown_name
from prunec.diagnostics import PrunecError
from prunec.plan.normalise import Normalise
from prunec.plan.plan import Compensation, Scope
from prunec.plan.structures import DEFAULT_STRUCTURES, Structure, parse_structures

DEFAULT = "obs"


class Recipe(BaseModel):
    """`floor`: least share of each group that stays; None: the scope's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    paper: str = ""
    pattern: Literal["channel"] = "channel"
    criterion: str
    scope: Scope = "global"
    normalise: Normalise = "mean"
    compensation: Compensation = "auto"
    floor: Annotated[float, Field(ge=0, lt=1)] | None = None
    structures: tuple[Structure, ...] = DEFAULT_STRUCTURES

    @field_validator("structures", mode="before")
    @classmethod
    def _parse_structures(cls, given: Any) -> Any:
        return parse_structures(given) if isinstance(given, str | list | tuple) else given


def names() -> list[str]:
    """Packaged recipes, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load(name_or_path: str | Path = DEFAULT) -> Recipe:
    """A packaged recipe, or the one in a YAML file.

    Raises:
        PrunecError PC203: no such recipe or file, or its criterion is unknown.
        PrunecError PC214: the file is not a recipe.
    """
    known = names()
    if str(name_or_path) in known:
        return _parse((_folder() / f"{name_or_path}.yaml").read_text("utf-8"), str(name_or_path))
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise PrunecError("PC203", "there is no such recipe file", where=str(path))
        raise unknown_name("PC203", "recipe", str(name_or_path), known)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrunecError("PC214", f"the recipe cannot be read: {error}", where=str(path)) from error
    return _parse(text, str(path))


def _parse(text: str, where: str) -> Recipe:
    hint = f"keys: {', '.join(Recipe.model_fields)}; prunec recipes shows the packaged ones"
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"the recipe is not YAML: {' '.join(str(error).split())}"
        raise PrunecError("PC214", message, where=where, hint=hint) from error
    if not isinstance(data, dict):
        raise PrunecError("PC214", "a recipe is a mapping of keys to values", where=where, hint=hint)
    try:
        recipe = Recipe.model_validate({"name": Path(where).stem, **data})
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in found["loc"])
        raise PrunecError("PC214", f"the recipe's {key!r}: {found['msg']}", where=where, hint=hint) from error
    if recipe.criterion not in criteria.names():
        raise unknown_name("PC203", "criterion", recipe.criterion, criteria.names())
    return recipe


def _folder() -> Any:
    return files("prunec.recipes")
