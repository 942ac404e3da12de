"""The looks of the toy world: one function a domain, from a clean scene to images [B, 3, H, W] in [0, 1].

`photo` is the source. `underwater`, `night` and `sketch` are the targets that are tested. `fog` is for development:
whatever is tuned for "another domain" is tuned on fog. Objects, places and labels are the same in every domain, so a
manifest poses the same question in five looks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.data.toyworld.noise import clouds, uniform
from fsslib.data.toyworld.scenes import Scene, colours


def _per_image(scene: Scene, stream: int, low: float, high: float) -> Tensor:
    return (low + (high - low) * uniform(scene.seeds, stream))[:, None, None, None]


def _grain(scene: Scene, stream: int, channels: int = 1) -> Tensor:
    """Noise of unit variance: a triangular distribution, close enough to a normal for a sensor."""
    size = scene.colour.shape[-1]
    fine = uniform(scene.seeds, stream, channels, size, size).mul_(4096)
    coarse = fine.floor()
    return fine.sub_(coarse).add_(coarse, alpha=1 / 4096).sub_(1).mul_(math.sqrt(6))


def blur(images: Tensor, pixels: float, *, beyond_edges: bool = True) -> Tensor:
    """Gaussian blur; `pixels` is the deviation in an image 64 pixels high, so that all sizes look alike.

    As a product with a banded matrix on either side, which is several times faster here than a convolution. Edges
    repeat beyond the picture; without `beyond_edges` there is nothing, and what is inside weighs more.
    """
    height, width = images.shape[-2:]
    deviation = pixels * height / 64

    def band(side: int) -> Tensor:
        """What is multiplied from the right. Tiny weights are left out: products of the smallest floats are slow."""
        at = torch.arange(side, device=images.device, dtype=images.dtype)
        reach = math.ceil(3 * deviation) if beyond_edges else 4 * deviation
        seen = torch.arange(-reach, side + reach, device=at.device, dtype=at.dtype) if beyond_edges else at
        apart = (seen - at[:, None]).abs()
        weights = torch.exp(-0.5 * (apart / deviation) ** 2).masked_fill_(apart > reach, 0)
        if not beyond_edges:
            return weights / weights.sum(0)
        weights = weights / weights.sum(1, keepdim=True)
        return torch.zeros(side, side, device=at.device).index_add_(1, seen.clamp(0, side - 1).long(), weights).T

    # Two plain matrix products over all rows: a batched product with a shared left factor would copy that factor.
    across = (images.reshape(-1, width) @ band(width)).view(images.shape).mT.reshape(-1, height)
    return (across @ band(height)).view(*images.shape[:-2], width, height).mT


def photo(scene: Scene) -> Tensor:
    """The source: the clean drawing, a sensor's fine grain."""
    return _grain(scene, 60).mul_(0.02) + scene.colour


def underwater(scene: Scene) -> Tensor:
    """Red goes first, then green: colour fades with depth into the water's own; haze, blur, drifting particles."""
    depth = (0.25 + scene.depth * _per_image(scene, 110, 0.6, 1.5)[:, 0])[:, None]
    green = _per_image(scene, 111, 0.0, 1.0)
    water = torch.cat([0.04 + 0.1 * green, 0.32 + 0.32 * green, 0.62 - 0.2 * green], 1)
    fade = torch.cat([2.3 + 0.4 * green, 0.75 - 0.25 * green, 0.5 + 0.5 * green], 1)
    seen = torch.exp(-fade * depth)
    image = blur(scene.colour * seen + water * (1 - torch.exp(-0.95 * depth)) * 0.95, 0.75)
    size = image.shape[-1]
    specks = (uniform(scene.seeds, 112, 1, size, size) > 0.996).float()
    return image + 0.35 * blur(specks, 0.6) + 0.012 * _grain(scene, 113)


def night(scene: Scene) -> Tensor:
    """Little light, less colour, one or two lamps, and a sensor at its limit."""
    size = scene.colour.shape[-1]
    axis = (torch.arange(size, device=scene.colour.device) + 0.5) / size
    lamps = uniform(scene.seeds, 120, 2, 2)
    light = 0.2 + 0.1 * _per_image(scene, 121, 0.0, 1.0)[:, 0]
    for k in range(2):
        down, across = ((axis - lamps[:, k, side, None]) ** 2 for side in (0, 1))
        light = light + 0.42 * torch.exp(-9 * (down[:, :, None] + across[:, None, :]))
    grey = scene.colour.mean(1, keepdim=True)
    dim = (0.45 * scene.colour + 0.55 * grey).clamp(min=0) ** 1.25 * light[:, None]
    tint = torch.tensor([0.85, 0.95, 1.25], device=grey.device)[None, :, None, None]
    return dim * tint + 0.015 + 0.05 * _grain(scene, 122, 3)


def sketch(scene: Scene) -> Tensor:
    """Pencil on paper: ink where brightness or colour changes, faint where only the background does."""
    strokes = blur(scene.colour, 0.45)
    dx = F.pad(strokes[..., :, 2:] - strokes[..., :, :-2], (1, 1, 0, 0), mode="replicate")
    dy = F.pad(strokes[..., 2:, :] - strokes[..., :-2, :], (0, 0, 1, 1), mode="replicate")
    edge = (dx * dx + dy * dy).amax(1, keepdim=True).sqrt() * (strokes.shape[-1] / 64)
    near_object = (2.5 * blur((scene.class_map > 0)[:, None].float(), 1.0)).clamp(max=1)
    ink = ((edge - 0.1) * 2.2).clamp(0, 1) * (0.25 + 0.75 * near_object)
    size = edge.shape[-1]
    paper = 0.93 + 0.06 * clouds(scene.seeds, 130, size, coarsest=4, octaves=5)[:, None]
    pressure = 0.75 + 0.5 * clouds(scene.seeds, 140, size, coarsest=8, octaves=3)[:, None]
    drawing = paper - 0.85 * (ink * pressure).clamp(0, 1) + 0.025 * _grain(scene, 149)
    return drawing.expand(-1, 3, -1, -1)


def fog(scene: Scene) -> Tensor:
    """Development only: contrast falls with depth towards a pale grey."""
    thickness = _per_image(scene, 150, 0.5, 1.4)
    seen = torch.exp(-thickness * scene.depth[:, None])
    grey = 0.3 * scene.colour + 0.7 * scene.colour.mean(1, keepdim=True)
    pale = 0.72 + 0.16 * colours(scene.seeds, 151, 1, dark=0.8)[:, 0, :, None, None]
    return blur(grey * seen + pale * (1 - seen), 0.5) + 0.02 * _grain(scene, 152)


DOMAINS = {"photo": photo, "underwater": underwater, "night": night, "sketch": sketch, "fog": fog}
SOURCE_DOMAIN = "photo"
TARGET_DOMAINS = ("underwater", "night", "sketch")
DEVELOPMENT_DOMAIN = "fog"
