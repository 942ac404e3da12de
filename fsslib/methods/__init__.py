"""One paper a file: blocks composed into a network, all with the interface of `base.Method`."""

import inspect
from pathlib import Path
from typing import Any

from fsslib.blocks.backbones import build_backbone
from fsslib.methods.base import Method
from fsslib.methods.hsnet import HSNet
from fsslib.methods.panet import PANet
from fsslib.methods.pfenet import PFENet
from fsslib.methods.pixda import PixDA
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.methods.rtd import RememberTheDifference
from fsslib.methods.sg_one import SGOne

METHODS: dict[str, type[Method]] = {
    "prototype": PrototypeNetwork,
    "sg_one": SGOne,
    "panet": PANet,
    "pfenet": PFENet,
    "hsnet": HSNet,
    "rtd": RememberTheDifference,
    "pixda": PixDA,
}


def build_method(name: str, *, backbone: str = "tiny", weights: str | Path = "none", **options: Any) -> Method:
    """A method by name on a backbone by name.

    `options` are the keyword arguments of the method's class, and two for the backbone: `backbone_stages`, its stages
    as a comma-separated text, and `freeze_backbone`, which trains the rest of the network only. Raises ValueError
    naming what there is for an unknown method or option.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}; there are {', '.join(METHODS)}.")
    allowed = [p for p in inspect.signature(METHODS[name]).parameters if p != "backbone"]
    chosen, freeze = options.pop("backbone_stages", None), options.pop("freeze_backbone", False)
    if unknown := sorted(set(options) - set(allowed)):
        has = ", ".join([*allowed, "backbone_stages", "freeze_backbone"])
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {has}.")
    how = METHODS[name].backbone_options(backbone)
    if chosen is not None:
        how |= {"stages": tuple(chosen.split(","))}
    built = build_backbone(backbone, weights=weights, **how)
    return METHODS[name](built.requires_grad_(not freeze), **options)
