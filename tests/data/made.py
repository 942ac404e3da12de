"""Sets of images that lie in memory."""

from collections.abc import Mapping
from pathlib import Path

import torch

from fsslib.data.images import LabelledImageSet
from fsslib.data.layouts import Place


class Made(LabelledImageSet):
    """Images and label maps by id, which it notes when they are loaded; `groups` names a letter of the id."""

    def __init__(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]], class_names, **more):
        self.pairs, self.loaded = pairs, []
        files = {image_id: Place(None, Path(image_id), {}) for image_id in pairs}
        super().__init__(files, class_names, **{"name": "made", "domain": "day", "size": 16} | more)

    def load(self, image_id: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.loaded.append(image_id)
        return self.pairs[image_id]

    def _labels(self, image_id: str) -> torch.Tensor:
        return self.pairs[image_id][1]


def halves(classes: Mapping[int, int], names: Mapping[int, str], **more) -> Made:
    """As many images of each class as stated: the class fills the left half, the brightness is 10 x class + number."""
    pairs = {}
    for c, count in classes.items():
        for k in range(count):
            labels = torch.zeros(20, 24, dtype=torch.int16)
            labels[:, :12] = c
            pairs[f"{names[c]}{k}"] = (torch.full((3, 20, 24), (10 * c + k) % 250, dtype=torch.uint8), labels)
    return Made(pairs, {c: names[c] for c in classes}, **more)
