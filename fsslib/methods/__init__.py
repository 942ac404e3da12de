"""One paper a file: blocks composed into a network, all with the interface of `base.Method`."""

import inspect
from pathlib import Path
from typing import Any

from fsslib.blocks.backbones import build_backbone
from fsslib.methods.base import Method
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.methods.sg_one import SGOne

METHODS: dict[str, type[Method]] = {"prototype": PrototypeNetwork, "sg_one": SGOne}


def build_method(name: str, *, backbone: str = "tiny", weights: str | Path = "none", **options: Any) -> Method:
    """A method by name on a backbone by name.

    `options` are the keyword arguments of the method's class, plus `stages` of the backbone as a comma-separated text
    under the name `backbone_stages`. Raises ValueError naming what there is for an unknown method or option.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}; there are {', '.join(METHODS)}.")
    allowed = [p for p in inspect.signature(METHODS[name]).parameters if p != "backbone"]
    chosen = options.pop("backbone_stages", None)
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join([*allowed, 'backbone_stages'])}.")
    stages = None if chosen is None else tuple(chosen.split(","))
    return METHODS[name](build_backbone(backbone, weights=weights, stages=stages), **options)
