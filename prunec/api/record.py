"""The base of everything that a public function returns."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Frozen; unknown fields and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict. A field that does not apply is absent, unless its type says that null means something."""
        return self.model_dump(mode="json", exclude_none=True)
