"""The looks of the streets: one clean game and five towns, as numbers and colours that the drawing reads.

A pair of numbers is a range, drawn anew for every picture; a list of colours is chosen from. The game is one sunny
afternoon with flat roofs, palms, yellow lines and diamond signs; each town has a light, a palette, a way of building
and a traffic of its own, and all towns are seen through a camera: haze, texture, soft lens, grain.
"""

from dataclasses import dataclass

Range = tuple[float, float]
Colours = tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """Everything that tells one town from another. Lengths in metres, chances in [0, 1], colours as "rrggbb"."""

    # The street.
    horizon: Range = (0.45, 0.52)
    half_road: Range = (4.2, 5.6)
    pavement: Range = (2.6, 4.4)
    plot: Range = (9.0, 13.0)
    eaves: Range = (4.0, 9.0)
    roof: Range = (1.2, 2.6)
    gable: float = 0.4
    garden: float = 0.2
    shop: float = 0.3
    fence: Range = (1.1, 1.7)
    hedge: Range = (1.6, 3.2)
    window: Range = (1.8, 2.8)
    open_end: float = 0.4
    hills: Range = (0.0, 0.03)
    zebra: float = 0.3
    # How many of each are met: chances for every place where one could be.
    parked: float = 0.4
    driving: float = 0.45
    vans: float = 0.25
    persons: float = 0.2
    riders: float = 0.22
    trees: float = 0.35
    tree_kinds: tuple[str, ...] = ("round", "round", "poplar")
    posts: float = 0.36
    post_kinds: tuple[str, ...] = ("lamp", "round sign", "triangle sign", "board", "light")
    # Colours.
    sky: tuple[str, str] = ("8fa9bd", "d5dbdc")
    cloud: Range = (0.3, 0.8)
    road: Colours = ("6a6a6c", "747270", "5c5e62")
    pavement_colour: Colours = ("9b968e", "8d8a86")
    line: str = "d8d8d0"
    facades: Colours = ("a98f78", "b7a690", "8f8378", "9a7565")
    roofs: Colours = ("6e4f45", "5b5453", "7a5a48")
    glass: str = "39434c"
    accents: Colours = ("7c3b35", "35524a", "8a713c", "3d4a66")
    fences: Colours = ("6f665c", "84786a", "4c5350")
    leaves: Colours = ("4f6139", "5d6b3f", "445a3c")
    cars: Colours = ("2b2d31", "a9acb0", "d6d6d2", "54585d", "3b4a63", "7b2d2a")
    clothes: Colours = ("2a2d36", "4b4640", "3a4657", "6b3b3a", "7d7668", "23262a")
    bonnet: str = "23262b"
    # Light and camera.
    sun: Range = (0.0, 0.6)
    sun_side: int = 0
    haze: Range = (0.004, 0.011)
    exposure: Range = (0.92, 1.2)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 0.9
    texture: float = 0.2
    blur: float = 0.45
    vignette: float = 0.25
    grain: float = 0.016


GAME = Look(
    half_road=(4.6, 5.6),
    pavement=(3.0, 4.0),
    plot=(9.0, 12.0),
    eaves=(4.5, 9.0),
    roof=(0.3, 0.6),
    gable=0.0,
    garden=0.22,
    shop=0.35,
    window=(2.0, 2.6),
    open_end=0.5,
    tree_kinds=("palm", "palm", "ball"),
    post_kinds=("lamp", "diamond sign", "diamond sign", "board", "light"),
    vans=0.12,
    riders=0.24,
    sky=("3f97e4", "c4e6f8"),
    cloud=(0.1, 0.9),
    road=("565b68", "636874", "74757a"),
    pavement_colour=("d9cdb4", "c4bba8", "ada69b"),
    line="f6cf3a",
    facades=("f2a65a", "f2d08c", "d9694e", "7cc0b6", "f0eadb", "e8b5a2", "b59a84", "9c8a80"),
    roofs=("b5483a", "8d5a86", "e9e2d0"),
    glass="2f6f9f",
    accents=("d7263d", "1b998b", "f46036", "2e4fa8"),
    fences=("fbf7ec", "c98c4f"),
    leaves=("3fae49", "6bb04f", "4a8a48"),
    cars=("e63946", "ffb703", "2a9df4", "f8f9fa", "8338ec", "06a77d", "3d4148"),
    clothes=("ff595e", "1982c4", "ffca3a", "6a4c93", "fdfcdc", "8ac926", "353b4c"),
    bonnet="c81d3a",
    sun=(0.7, 0.8),
    sun_side=1,
    haze=(0.0, 0.002),
    exposure=(0.9, 1.06),
    saturation=1.0,
    texture=0.06,
    blur=0.0,
    vignette=0.0,
    grain=0.01,
)

MEADOW = Look(
    garden=0.35,
    eaves=(3.5, 7.5),
    trees=0.42,
    sky=("9db4c4", "d9dedb"),
    hills=(0.01, 0.05),
    facades=("b3a58f", "c2b8a6", "8e7f70", "a4907c"),
)

HARBOUR = Look(
    plot=(12.0, 17.0),
    eaves=(6.0, 10.5),
    gable=0.2,
    garden=0.22,
    pavement=(3.2, 5.0),
    trees=0.12,
    posts=0.46,
    vans=0.5,
    persons=0.15,
    open_end=0.75,
    sky=("8c9aa6", "c9d2d6"),
    cloud=(0.7, 1.0),
    road=("585d61", "62676a"),
    pavement_colour=("8b9092", "7d8387"),
    facades=("8a4f42", "7a5a50", "94908a", "6d7c86"),
    roofs=("4a4d50", "59483f"),
    fences=("5d666b", "7c8488"),
    leaves=("4c5a44", "55624a"),
    haze=(0.008, 0.018),
    sun=(0.0, 0.2),
    tint=(0.92, 1.0, 1.08),
    saturation=0.75,
    exposure=(0.9, 1.1),
)

HILLSIDE = Look(
    eaves=(3.5, 7.0),
    garden=0.3,
    gable=0.3,
    hills=(0.05, 0.11),
    trees=0.5,
    tree_kinds=("poplar", "round", "fir"),
    parked=0.3,
    riders=0.3,
    open_end=0.7,
    sky=("a3b3c4", "ead9bf"),
    cloud=(0.0, 0.4),
    road=("7c736b", "857a70"),
    pavement_colour=("b09c84", "a38f7a"),
    facades=("c9a987", "d3b99a", "b98c6c", "c7c0b0"),
    roofs=("8a4b36", "7b5040"),
    leaves=("6a6b35", "5c6a38", "77703c"),
    haze=(0.002, 0.008),
    sun=(0.6, 0.95),
    tint=(1.1, 1.0, 0.84),
    saturation=0.9,
    exposure=(0.95, 1.2),
    bonnet="555a60",
)

OLDTOWN = Look(
    half_road=(3.6, 4.6),
    pavement=(2.2, 3.4),
    plot=(6.0, 8.5),
    eaves=(6.0, 9.5),
    roof=(2.2, 3.6),
    gable=0.75,
    garden=0.12,
    shop=0.65,
    window=(1.5, 2.1),
    open_end=0.45,
    trees=0.15,
    parked=0.25,
    persons=0.34,
    riders=0.36,
    zebra=0.45,
    sky=("b4bcc0", "dfe0da"),
    road=("77706a", "6c6864", "7f776e"),
    pavement_colour=("8a8078", "958a7e"),
    facades=("b88e5e", "c5a878", "a5654c", "cbbfa5", "8f7f6b"),
    roofs=("7c4334", "69453a"),
    haze=(0.003, 0.009),
    sun=(0.0, 0.5),
    tint=(1.05, 1.0, 0.92),
    exposure=(0.85, 1.1),
    texture=0.28,
    grain=0.022,
)

SUBURB = Look(
    half_road=(4.0, 5.2),
    pavement=(3.4, 5.4),
    plot=(11.0, 15.0),
    eaves=(3.2, 5.2),
    roof=(1.8, 3.0),
    gable=0.5,
    garden=0.45,
    shop=0.03,
    trees=0.5,
    tree_kinds=("round", "ball", "fir"),
    parked=0.6,
    persons=0.15,
    sky=("7f9fc0", "cfdbe2"),
    cloud=(0.2, 0.7),
    facades=("cfc8ba", "b59f8b", "a8604c", "bdb6ab"),
    roofs=("4f4a4a", "6b4a40"),
    fences=("d8d4c8", "7b6a55", "5a6156"),
    leaves=("4a6a35", "567341", "3e5c38"),
    sun=(0.3, 0.8),
    exposure=(0.95, 1.25),
    vignette=0.35,
)

CITIES = ("harbour", "hillside", "oldtown", "suburb")
"""The towns that are tested."""

DEVELOPMENT_CITY = "meadow"
"""The town on which everything is tuned."""

LOOKS = {
    "game": GAME,
    "harbour": HARBOUR,
    "hillside": HILLSIDE,
    "oldtown": OLDTOWN,
    "suburb": SUBURB,
    "meadow": MEADOW,
}
