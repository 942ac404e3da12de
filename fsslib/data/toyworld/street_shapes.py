"""The objects of the streets as lists of parts: boxes, triangles, discs and diamonds, in metres."""

import torch

from fsslib.data.toyworld.street_scenes import CAR, PERSON, POLE, RIDER, TREE
from fsslib.episodes import VOID

COLOURS = ("1d1f22", "35424d", "c22a26", "f2b632", "f1f1ec", "2f5fa8", "3d9b57", "6f7479", "6b4f38", "e3b08c")
"""The colours that all share; an object has two of its own before them, which is how parts count."""

_MAIN, _SECOND, _BLACK, _GLASS, _RED, _YELLOW, _WHITE, _BLUE, _GREEN, _GREY, _BROWN, _SKIN = range(12)
BOX, DISC, DIAMOND = range(3)
X, Y, HALF_WIDTH, HALF_HEIGHT, COLOUR, SHADE, Z, TAPER, FORM, LEAN, OPACITY, IS_SIGN = range(12)
"""What the numbers of a part are."""

Part = tuple[float, ...]


def _part(
    x, y, half_width, half_height, colour, shade=1.0, *, z=0.0, taper=0.0, form=BOX, lean=0.0, opacity=1.0, sign=0
):
    """One part: its middle and half sizes in metres from where the object stands, its colour and brightness.

    `z` is how much farther away it is, `taper` the share of its width that it loses up to its top, `lean` how far its
    top stands to the right of its middle; `sign` marks what is labelled as a traffic sign.
    """
    return (x, y, half_width, half_height, colour, shade, z, taper, form, lean, opacity, sign)


def _disc(x, y, half_width, half_height, colour, shade=1.0, **more) -> Part:
    return _part(x, y, half_width, half_height, colour, shade, form=DISC, **more)


def _shadow(half_width: float) -> Part:
    return _disc(0, 0.0, half_width, 0.12 * half_width, _BLACK, 0.6, opacity=0.42)


def _vehicle(front: bool, width: float, belt: float, top: float, length: float, taper: float) -> list[Part]:
    """Slices from the far to the near end make the flanks; the near end carries lamps, glass and a number plate."""
    cabin, middle = (top - belt) / 2, (belt + 0.3) / 2
    parts = [_part(0, 0.04, width * 1.06, 0.1, _BLACK, 0.6, opacity=0.5)]
    for k in range(5, 0, -1):
        z = length * k / 5
        parts.append(_part(0, middle, width, (belt - 0.3) / 2, _MAIN, 0.74, z=z))
        if k < 5 or top > 1.8:
            pillar = k == 5 or (k == 3 and top < 1.8)
            parts.append(
                _part(0, belt + cabin, width * 0.88, cabin, _MAIN if pillar else _GLASS, 0.8, z=z, taper=taper / 2)
            )
    for x in (-0.78 * width, 0.78 * width):
        parts += [
            _part(x, 0.3, 0.2 * width, 0.3, _BLACK, z=0.82 * length),
            _part(x, 0.3, 0.2 * width, 0.3, _BLACK, z=0.3),
        ]
    parts += [
        _part(0, middle, width, (belt - 0.3) / 2, _MAIN),
        _part(0, belt + cabin, width * 0.9, cabin, _MAIN, 1.08, taper=taper),
        _part(0, belt + cabin * 0.95, width * 0.76, cabin * 0.68, _GLASS, taper=taper),
        _part(0, 0.42, width, 0.14, _MAIN, 0.7),
    ]
    lamp = belt - 0.2
    if front:
        parts.append(_part(0, lamp - 0.06, width * 0.5, 0.1, _BLACK))
    parts += [_disc(x, lamp, 0.17, 0.13, _WHITE if front else _RED, 1.05) for x in (-0.78 * width, 0.78 * width)]
    parts.append(_part(0, 0.52, 0.26, 0.08, _WHITE))
    return parts


def _crown(*discs: tuple[float, float, float, float]) -> list[Part]:
    """Leaves: each ball with its sunlit side."""
    parts = [_disc(x, y, w, h, _MAIN, 0.8) for x, y, w, h in discs]
    parts += [_disc(x + 0.15 * w, y + 0.18 * h, 0.72 * w, 0.7 * h, _MAIN, 1.05) for x, y, w, h in discs[:4]]
    return parts


def _post(height: float, half_width: float = 0.11) -> list[Part]:
    return [_shadow(0.3), _part(0, height / 2, half_width, height / 2, _GREY)]


def _standing(*, dress: bool) -> list[Part]:
    parts = [_shadow(0.4)]
    parts += [_part(x, 0.42, 0.1, 0.42, _SKIN if dress else _SECOND, lean=-0.4 * x) for x in (-0.13, 0.13)]
    if dress:
        parts.append(_part(0, 0.75, 0.36, 0.3, _MAIN, 0.9, taper=0.5))
    parts += [_part(x, 1.12, 0.08, 0.3, _MAIN, 0.78, lean=-0.15 * x) for x in (-0.29, 0.29)]
    parts += [_part(0, 1.14, 0.24, 0.32, _MAIN, taper=-0.15), _disc(0, 1.68, 0.17, 0.17, _BROWN, 0.6)]
    return [*parts, _disc(0, 1.6, 0.14, 0.17, _SKIN)]


def _riding_away() -> list[Part]:
    return [
        _shadow(0.5),
        _part(0, 0.36, 0.07, 0.36, _BLACK),
        _part(-0.17, 0.6, 0.09, 0.32, _SECOND, lean=0.06),
        _part(0.17, 0.7, 0.09, 0.3, _SECOND, lean=-0.06),
        _part(0, 1.08, 0.42, 0.04, _BLACK),
        _part(-0.33, 1.25, 0.07, 0.24, _MAIN, 0.8, lean=0.05),
        _part(0.33, 1.25, 0.07, 0.24, _MAIN, 0.8, lean=-0.05),
        _part(0, 1.3, 0.26, 0.34, _MAIN, taper=-0.2),
        _disc(0, 0.72, 0.09, 0.07, _RED),
        _disc(0, 1.78, 0.15, 0.17, _SKIN),
        _disc(0, 1.87, 0.18, 0.13, _YELLOW),
    ]


def _riding_across() -> list[Part]:
    wheels = [_disc(x, 0.36, 0.36, 0.36, _BLACK) for x in (-0.56, 0.56)]
    wheels += [_disc(x, 0.36, 0.27, 0.27, _GREY, 1.25) for x in (-0.56, 0.56)]
    return [
        _shadow(0.9),
        *wheels,
        _part(0.02, 0.62, 0.5, 0.05, _RED),
        _part(-0.3, 0.6, 0.04, 0.26, _RED, lean=0.1),
        _part(0.5, 0.75, 0.04, 0.36, _RED, lean=-0.08),
        _part(-0.02, 0.66, 0.1, 0.34, _SECOND, lean=-0.12),
        _part(0.02, 1.24, 0.22, 0.36, _MAIN, lean=0.18),
        _part(0.36, 1.22, 0.07, 0.2, _MAIN, 0.8, lean=-0.2),
        _disc(0.26, 1.74, 0.15, 0.17, _SKIN),
        _disc(0.24, 1.84, 0.19, 0.13, _YELLOW),
    ]


_KINDS: dict[str, tuple[int, list[Part]]] = {
    "car away": (CAR, _vehicle(False, 0.92, 0.95, 1.5, 3.6, 0.22)),
    "car coming": (CAR, _vehicle(True, 0.92, 0.92, 1.48, 3.6, 0.26)),
    "van away": (CAR, _vehicle(False, 1.02, 1.15, 2.35, 4.2, 0.06)),
    "van coming": (CAR, _vehicle(True, 1.02, 1.1, 2.3, 4.2, 0.1)),
    "round": (
        TREE,
        [
            _shadow(1.2),
            _part(0, 1.2, 0.17, 1.2, _BROWN),
            *_crown((-1.0, 3.1, 1.1, 0.9), (1.0, 3.2, 1.1, 0.95), (0, 4.3, 1.3, 1.1), (0.1, 3.2, 1.2, 1.1)),
        ],
    ),
    "ball": (TREE, [_shadow(1.0), _part(0, 1.0, 0.14, 1.0, _BROWN), *_crown((0, 3.2, 1.5, 1.4), (0.3, 3.5, 1.0, 0.9))]),
    "poplar": (
        TREE,
        [_shadow(0.8), _part(0, 0.8, 0.15, 0.8, _BROWN), *_crown((0, 2.8, 0.85, 1.7), (0.1, 4.4, 0.7, 1.7))],
    ),
    "fir": (
        TREE,
        [_shadow(1.0), _part(0, 0.5, 0.16, 0.5, _BROWN)]
        + [_part(0, 1.5 + k, 1.5 - 0.32 * k, 0.9, _MAIN, 0.75 + 0.1 * k, taper=0.95) for k in range(4)],
    ),
    "palm": (
        TREE,
        [_shadow(0.9), _part(0.1, 2.3, 0.16, 2.3, _BROWN, 1.5, lean=0.06)]
        + [_disc(x, y, 0.95, 0.26, _MAIN, s) for x, y, s in ((-0.8, 4.3, 0.8), (1.2, 4.35, 0.8), (0.2, 5.1, 0.9))]
        + [_disc(x, y, 0.85, 0.24, _MAIN, s) for x, y, s in ((-0.6, 4.8, 1.1), (0.9, 4.85, 1.1), (0.2, 4.6, 0.95))]
        + [_disc(x, 4.35, 0.16, 0.16, _BROWN, 0.8) for x in (0.1, 0.4)],
    ),
    "lamp": (
        POLE,
        [
            *_post(5.2, 0.14),
            _part(0.6, 5.2, 0.66, 0.06, _GREY),
            _part(1.15, 5.12, 0.3, 0.09, _GREY, 0.8),
            _disc(1.15, 5.02, 0.2, 0.07, _WHITE),
        ],
    ),
    "round sign": (
        POLE,
        [*_post(2.9), _disc(0, 2.75, 0.48, 0.48, _RED, sign=1), _disc(0, 2.75, 0.32, 0.32, _WHITE, sign=1)],
    ),
    "triangle sign": (
        POLE,
        [
            *_post(2.9),
            _part(0, 2.75, 0.58, 0.5, _RED, taper=1.0, sign=1),
            _part(0, 2.68, 0.32, 0.28, _WHITE, taper=1.0, sign=1),
        ],
    ),
    "diamond sign": (
        POLE,
        [
            *_post(2.9),
            _part(0, 2.75, 0.62, 0.62, _YELLOW, form=DIAMOND, sign=1),
            _part(0, 2.75, 0.16, 0.16, _BLACK, sign=1),
        ],
    ),
    "board": (
        POLE,
        [
            *_post(2.7),
            _part(0, 2.8, 0.78, 0.46, _WHITE, sign=1),
            _part(0, 2.8, 0.7, 0.38, _BLUE, sign=1),
            _part(-0.05, 2.92, 0.5, 0.07, _WHITE, sign=1),
            _part(0.05, 2.68, 0.4, 0.07, _WHITE, sign=1),
        ],
    ),
    "light": (
        POLE,
        [
            *_post(3.0),
            _part(0, 2.95, 0.3, 0.68, _BLACK, sign=1),
            _disc(0, 3.37, 0.19, 0.19, _RED, sign=1),
            _disc(0, 2.95, 0.19, 0.19, _YELLOW, 0.7, sign=1),
            _disc(0, 2.53, 0.19, 0.19, _GREEN, sign=1),
        ],
    ),
    "walker": (PERSON, _standing(dress=False)),
    "walker in a dress": (PERSON, _standing(dress=True)),
    "rider away": (RIDER, _riding_away()),
    "rider across": (RIDER, _riding_across()),
    "bin": (
        VOID,
        [
            _shadow(0.5),
            _part(0, 0.5, 0.36, 0.5, _GREEN, 0.55, taper=-0.15),
            _part(0, 1.04, 0.42, 0.08, _BLACK),
        ],
    ),
}

NAMES = tuple(_KINDS)
FAMILIES = tuple(max(len(p) for k, p in _KINDS.values() if (k == CAR) == car) for car in (False, True))
"""Most parts of anything else, and of a vehicle: those two are drawn apart from each other."""

TABLE = torch.zeros(len(_KINDS), max(FAMILIES), 12)
TABLE[:, :, [HALF_WIDTH, HALF_HEIGHT]] = 0.01
for _number, (_, _parts) in enumerate(_KINDS.values()):
    TABLE[_number, : len(_parts)] = torch.tensor(_parts[::-1])
"""The parts [kinds, parts, 12] of every kind, nearest first: the order in which pixels are given away. Parts that a
kind does not have are tiny and clear."""

CLASSES = torch.tensor([label for label, _ in _KINDS.values()])
