"""The class ids that all real data sets share: one number for one name, so that a dog is never a negative of a dog.

VOC's twenty classes keep the numbers of its label maps; the sixty further classes of COCO follow, then those of the
other sets. A set whose own name for a class differs ("tvmonitor", "tv") is mapped by `ALIASES`. Ids fit a label map of
bytes: 0 is background, 255 void. Above are the toy world's classes, from 1001, and those that FSS-1000 alone has, from
2001.
"""

import functools
from collections.abc import Mapping

from fsslib.paths import shipped

_VOC = """aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor"""
_COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli,
carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush"""
"""In the order of COCO's category numbers."""
_STREETS = "road, pavement, building, wall, fence, pole, sign, tree, terrain, sky, bicyclist"
_DEFECTS = "blowhole, break, crack, fray, uneven"
_UNDERWATER = "aquatic plant, wreck, robot, reef, fish, sea floor"
_FROM_ABOVE = "agriculture land, urban land, rangeland, forest land, water, barren land"
_MEDICAL = "nevus, melanoma, seborrheic keratosis, lung, polyp"
_DRIVING = "rider"
ALIASES: Mapping[str, str] = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
    "pedestrian": "person",
    "diver": "person",
    "television": "tvmonitor",
    "hotdog": "hot dog",
    "doughnut": "donut",
    "teddy": "teddy bear",
    "computer mouse": "mouse",
    "remote control": "remote",
    "flying disc": "frisbee",
    "sidewalk": "pavement",
    "vegetation": "tree",
    "traffic sign": "sign",
}
"""Other sets' names for a class that has one here."""

_LISTS = (_VOC, _COCO, _STREETS, _DEFECTS, _UNDERWATER, _FROM_ABOVE, _MEDICAL, _DRIVING)
_NAMES = [ALIASES.get(name, name) for names in _LISTS for name in " ".join(names.split()).split(", ")]

CLASS_IDS: Mapping[str, int] = {name: number for number, name in enumerate(dict.fromkeys(_NAMES), start=1)}
"""Global id of each class name, 1 and up, in an order that only ever grows at its end."""

CLASS_NAMES: Mapping[int, str] = {number: name for name, number in CLASS_IDS.items()}

COCO_CLASSES = tuple(CLASS_IDS[name] for name in _NAMES[20:100])
"""Global ids of COCO's classes in the order of its category numbers: place k is "class k" of COCO-20i."""

FIRST_FSS = 2001
"""Global id of the first of FSS-1000's classes in alphabetical order, if no other data set has it."""

OWN_MEANING = ("mouse",)
"""Names in FSS-1000 that mean another thing than elsewhere: "computer_mouse" is the mouse, so this is the animal."""


@functools.cache
def fss_1000(part: str | None = None) -> dict[str, str]:
    """The class of each folder of FSS-1000, or of its part "trn", "val" or "test", in the order of their global ids.

    The 240 test classes are the release's; it parts the other 760 at random, here as HSNet. A class that another data
    set has too, by this or another name, is that class. The others are numbered by their place among all thousand, so
    that no id depends on the part.
    """
    names = {folder: folder.replace("_", " ") + " (FSS-1000)" * (folder in OWN_MEANING) for folder in _folders(part)}
    return dict(sorted(names.items(), key=lambda item: class_id(item[1])))


@functools.cache
def _folders(part: str | None) -> tuple[str, ...]:
    lists = [
        shipped("data") / "splits" / "fss_1000" / f"{p}.txt" for p in ((part,) if part else ("trn", "val", "test"))
    ]
    return tuple(sorted(folder for path in lists for folder in path.read_text(encoding="utf-8").split()))


def class_id(name: str) -> int:
    """The id of a class by this or another set's name for it. Raises KeyError for a name that no set has."""
    name = ALIASES.get(name, name)
    if name in CLASS_IDS:
        return CLASS_IDS[name]
    folder = name.removesuffix(" (FSS-1000)").replace(" ", "_")
    if folder not in _folders(None):
        raise KeyError(name)
    return FIRST_FSS + _folders(None).index(folder)
