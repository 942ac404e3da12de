"""One paper a file: blocks composed into a network, all with the interface of `base.Method`.

Names are known without an import of torch; a method's file is read when the method is asked for.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

METHODS = {
    "prototype": "fsslib.methods.prototype:PrototypeNetwork",
    "sg_one": "fsslib.methods.sg_one:SGOne",
    "panet": "fsslib.methods.panet:PANet",
    "pfenet": "fsslib.methods.pfenet:PFENet",
    "hsnet": "fsslib.methods.hsnet:HSNet",
    "rtd": "fsslib.methods.rtd:RememberTheDifference",
    "pixda": "fsslib.methods.pixda:PixDA",
}
ADAPTING = frozenset({"pixda"})
"""Those that take images with a fixed list of classes, from two domains; all others take episodes."""


def adapts(name: str) -> bool:
    """Whether a method, named as for `method_class`, is for domain adaptation."""
    return name in ADAPTING if name in METHODS else method_class(name).adapts


def method_class(name: str) -> "type[fsslib.methods.base.Method]":
    """The class of a method: one of `METHODS` by its name, any other by `package.module:Class`.

    Raises ValueError for a name that leads to no subclass of `Method`.
    """
    module, _, wanted = METHODS.get(name, name).partition(":")
    if not (module and wanted):
        raise ValueError(
            f"Unknown method {name!r}; there are {', '.join(METHODS)}. One of your own is named package.module:Class."
        )
    from fsslib.methods.base import Method

    try:
        found = getattr(importlib.import_module(module), wanted, None)
    except (ImportError, TypeError) as error:
        raise ValueError(
            f"Method {name!r} cannot be imported: {error}. Install it, or put its folder's full path on PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"{module} has no method {wanted!r}, found {found!r}; derive a class from fsslib.methods.base.Method."
        )
    return found


def build_method(
    name: str, *, backbone: str = "tiny", weights: str | Path = "none", **options: Any
) -> "fsslib.methods.base.Method":
    """A method, named as for `method_class`, on a backbone by name.

    `options` are the keyword arguments of the method's class, and two for the backbone: `backbone_stages`, its stages
    as a comma-separated text, and `freeze_backbone`, which trains the rest of the network only. Raises ValueError
    naming what there is for an unknown method or option.
    """
    from fsslib.blocks.backbones import build_backbone

    kind = method_class(name)
    allowed = [p for p in inspect.signature(kind).parameters if p != "backbone"]
    chosen, freeze = options.pop("backbone_stages", None), options.pop("freeze_backbone", False)
    if unknown := sorted(set(options) - set(allowed)):
        has = ", ".join([*allowed, "backbone_stages", "freeze_backbone"])
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {has}.")
    how = kind.backbone_options(backbone) | ({} if chosen is None else {"stages": tuple(chosen.split(","))})
    built = build_backbone(backbone, weights=weights, **how)
    return kind(built.requires_grad_(not freeze), **options)
