"""The class ids that all real data sets share: one number for one name, so that a dog is never a negative of a dog.

VOC's twenty classes keep the numbers of its label maps; the sixty further classes of COCO follow, then those of the
other sets. A set whose own name for a class differs ("tvmonitor", "tv") is mapped by `ALIASES`. Ids fit a label map of
bytes: 0 is background, 255 void. Above are the toy world's classes, from 1001, and those that FSS-1000 alone has, from
2001 (`fsslib.data.fss1000`).
"""

from collections.abc import Iterable, Mapping

_VOC = """aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor"""
_COCO = """truck, traffic light, fire hydrant, stop sign, parking meter, bench, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, bed, toilet, laptop, mouse, remote, keyboard, cell phone, microwave,
oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""
_STREETS = "road, pavement, building, wall, fence, pole, sign, tree, terrain, sky, bicyclist"
_DEFECTS = "blowhole, break, crack, fray, uneven"
_UNDERWATER = "aquatic plant, wreck, robot, reef, fish, sea floor"
_FROM_ABOVE = "agriculture land, urban land, rangeland, forest land, water, barren land"
_MEDICAL = "nevus, melanoma, seborrheic keratosis, lung, polyp"
_DRIVING = "rider"
_LISTS = (_VOC, _COCO, _STREETS, _DEFECTS, _UNDERWATER, _FROM_ABOVE, _MEDICAL, _DRIVING)

CLASS_IDS: Mapping[str, int] = {
    name.strip(): number for number, name in enumerate(",".join(_LISTS).split(","), start=1)
}
"""Global id of each class name, 1 and up, in an order that only ever grows at its end."""

CLASS_NAMES: Mapping[int, str] = {number: name for name, number in CLASS_IDS.items()}

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
}
"""Other sets' names for a class that has one here."""


def class_id(name: str) -> int:
    """The id of a class by this or another set's name for it. Raises KeyError for a name that no set has."""
    return CLASS_IDS[ALIASES.get(name, name)]


def named(ids: Iterable[int]) -> dict[int, str]:
    """The ids with their names, as a reader's `class_names`."""
    return {number: CLASS_NAMES[number] for number in ids}
