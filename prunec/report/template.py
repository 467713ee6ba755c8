"""Templates of pages: names are escaped, times and sizes are written as everywhere, and `style` is the style sheet."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from prunec.report import units

_HERE = Path(__file__).parent


def template(name: str) -> jinja2.Template:
    """The one in the file `name` beside this one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    for show in (units.ms, units.size, units.share, units.factor, units.number, units.error, units.change, units.count):
        environment.filters[show.__name__] = show
    environment.globals["style"] = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(name)
