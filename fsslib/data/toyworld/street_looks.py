"""The looks of the streets, from `street_looks.yaml`: one clean game and five towns.

Each town has a light, a palette, a way of building and a traffic of its own, and all towns are seen through a camera:
haze, texture, soft lens, grain.
"""

from dataclasses import make_dataclass
from importlib import resources
from typing import Any

import yaml

CITIES = ("harbour", "hillside", "oldtown", "suburb")
"""The towns that are tested."""

DEVELOPMENT_CITY = "meadow"
"""The town on which everything is tuned."""


def _fixed(look: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in look.items()}


_READ = yaml.safe_load((resources.files("fsslib.data.toyworld") / "street_looks.yaml").read_text(encoding="utf-8"))
_EVERY = _fixed(_READ.pop("every"))

Look = make_dataclass("Look", _EVERY, frozen=True)
"""Everything that tells one town from another; the fields are explained in the file."""

LOOKS = {name: Look(**(_EVERY | _fixed(look))) for name, look in _READ.items()}
