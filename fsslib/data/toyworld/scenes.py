"""Composing and drawing scenes: which objects, where, and their pixels, for a whole batch at once."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.data.toyworld.classes import FIRST_ID, SILHOUETTE_OF, TEXTURE_OF
from fsslib.data.toyworld.noise import clouds, uniform
from fsslib.data.toyworld.surfaces import SILHOUETTES, TEXTURES

MAX_OBJECTS = 4
NEAREST_TO_EDGE = 0.16
"""How close to the border an object's centre may lie, as a fraction of the side."""

MOST_TILT = 0.45
"""Objects stand upright to within this many radians: with any rotation a small network needs ten times the training."""


@dataclass(frozen=True)
class Layout:
    """Where the objects of B scenes are, back to front; lengths in image sides, class -1 is no object."""

    seeds: Int[Tensor, "B"]
    classes: Int[Tensor, "B objects"]
    centres: Float[Tensor, "B objects 2"]
    radii: Float[Tensor, "B objects"]
    angles: Float[Tensor, "B objects"]


@dataclass(frozen=True)
class Scene:
    """The clean drawing of B scenes, from which a domain makes its images.

    `class_map` holds class ids and 0 for background; `part_map` is 1 on an object's textured part, 2 on its plain body;
    `depth` is 0 near and 1 far.
    """

    seeds: Int[Tensor, "B"]
    colour: Float[Tensor, "B 3 H W"]
    class_map: Int[Tensor, "B H W"]
    part_map: Int[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]


def compose(seeds: Int[Tensor, "B"], wanted: Int[Tensor, "B W"], distractors: Int[Tensor, "D"]) -> Layout:
    """Lay out scenes of 1 to 4 objects: the wanted classes (-1 is none), filled up with classes from `distractors`.

    Each object takes the first of eight random places that leaves its neighbours mostly visible, so that objects
    occlude each other without hiding one; a wanted object that found no such place is drawn in front.
    """
    batch, slots = len(seeds), MAX_OBJECTS
    classes = torch.full((batch, slots), -1, dtype=torch.int64, device=seeds.device)
    classes[:, : wanted.shape[1]] = wanted
    needed = (wanted >= 0).sum(1)
    # Mostly three or four: with one or two objects a scene, marking whatever is an object would answer most questions.
    total = (1 + (uniform(seeds, 1).sqrt() * slots).long()).clamp(max=slots).maximum(needed)
    if len(distractors):
        extra = distractors[(uniform(seeds, 2, slots) * len(distractors)).long()]
        free = (classes < 0) & ((classes < 0).cumsum(1) <= (total - needed)[:, None])
        # A distractor of a wanted class is left out: how many objects answer the question stays in the caller's hands.
        clash = (extra[:, :, None] == wanted[:, None, :]).any(-1)
        classes = torch.where(free & ~clash, extra, classes)

    crowd = 1.06 - 0.08 * (classes >= 0).sum(1, keepdim=True)
    radii = (0.29 + 0.12 * uniform(seeds, 3, slots)) * crowd
    angles = MOST_TILT * (2 * uniform(seeds, 4, slots) - 1)
    places = NEAREST_TO_EDGE + (1 - 2 * NEAREST_TO_EDGE) * uniform(seeds, 5, slots, 8, 2)
    centres = places[:, :, 0].clone()
    apart = torch.full((batch, slots), 9.0, device=seeds.device)
    for k in range(1, slots):
        gaps = (places[:, k, :, None] - centres[:, None, :k]).norm(dim=-1) / (
            radii[:, k, None, None] + radii[:, None, :k]
        )
        gaps = gaps.masked_fill(classes[:, None, :k] < 0, 9.0).amin(-1)
        choice = torch.where(gaps.amax(1) > 0.75, (gaps > 0.75).long().argmax(1), gaps.argmax(1))
        centres[:, k] = places[torch.arange(batch, device=seeds.device), k, choice]
        apart[:, k] = gaps.gather(1, choice[:, None])[:, 0]

    is_wanted = torch.arange(slots, device=seeds.device) < wanted.shape[1]
    crowded = apart.amin(1, keepdim=True) < 0.6
    order = (uniform(seeds, 6, slots) + 2.0 * (is_wanted & crowded)).argsort(1)

    def pick(values: Tensor) -> Tensor:
        return values.gather(1, order)

    return Layout(
        seeds, pick(classes), centres.gather(1, order[..., None].expand(-1, -1, 2)), pick(radii), pick(angles)
    )


def colours(seeds: Int[Tensor, "B"], stream: int, count: int, *, dark: float = 0.12) -> Float[Tensor, "B count 3"]:
    """Random saturated colours."""
    hue, saturation, value = uniform(seeds, stream, 3, count).unbind(1)
    corners = (hue[..., None] * 6 + torch.tensor([0.0, 4.0, 2.0], device=seeds.device)) % 6
    pure = ((corners - 3).abs() - 1).clamp(0, 1)
    value = dark + (0.98 - dark) * value
    return value[..., None] * (1 - (0.25 + 0.6 * saturation)[..., None] * (1 - pure))


def draw(layout: Layout, size: int) -> Scene:
    """Draw the layout at `size` x `size` pixels, clean: domain looks come afterwards (see domains.py)."""
    seeds, device = layout.seeds, layout.seeds.device
    batch, slots = layout.classes.shape
    light = 2 * math.pi * uniform(seeds, 21)

    # Every object is painted in a square window just large enough for the largest one. The margin lets windows reach
    # over the image's edge. Plane 3 holds the number of the object seen at a pixel, 0 for the background.
    largest = layout.radii.masked_fill(layout.classes < 0, 0).amax().item()
    window = 2 * math.ceil(1.1 * largest * size)
    margin = max(0, window // 2 - int(NEAREST_TO_EDGE * size)) + 1
    side = size + 2 * margin
    canvas = torch.zeros(4, batch, side, side, device=device)
    inner = canvas[:, :, margin : margin + size, margin : margin + size]
    inner[:3] = _background(seeds, size)
    flat = canvas.view(4, -1)
    offsets = torch.arange(window, device=device)
    within = offsets[:, None] * side + offsets

    for k in range(slots):
        image = (layout.classes[:, k] >= 0).nonzero()[:, 0]
        image = image[layout.classes[image, k].argsort(stable=True)]
        if not len(image):
            continue
        kinds, own = layout.classes[image, k] - FIRST_ID, seeds[image] * 8 + k
        centre, radius, angle = (
            layout.centres[image, k] * size,
            layout.radii[image, k, None] * size,
            layout.angles[image, k, None],
        )
        corner = (centre - window / 2).round().long()
        dx, dy = ((corner[:, a, None] + offsets + 0.5 - centre[:, a, None]) / radius for a in (0, 1))
        cos, sin = angle.cos(), angle.sin()
        x = (cos * dx)[:, None, :] + (sin * dy)[:, :, None]
        y = (cos * dy)[:, :, None] - (sin * dx)[:, None, :]
        distance, pattern = _surfaces(kinds, x, y, uniform(own, 30)[:, None, None])

        textured = y < 0.55
        first, second, body = (c.T[:, :, None, None] for c in _object_colours(own))
        paint = torch.where(textured, first + (second - first) * pattern, body)
        slant = light[image, None]
        paint *= 1 + 0.22 * ((slant.cos() * dx)[:, None, :] + (slant.sin() * dy)[:, :, None])
        alpha = (distance * radius[..., None] + 0.5).clamp_(0, 1)
        shadow = 1 - 0.4 * (1 + 8 * distance.clamp_(max=0)).clamp_(0, 1)

        start = (image * side + corner[:, 1] + margin) * side + corner[:, 0] + margin
        pixels = (start[:, None, None] + within).flatten()
        under = flat.index_select(1, pixels).view(4, *alpha.shape)
        under[:3] = torch.lerp(under[:3] * shadow, paint, alpha)
        number = torch.where(textured, 1.0, 2.0) + (2 * k)
        under[3] = torch.where(alpha > 0.5, number, under[3])
        flat.index_copy_(1, pixels, under.flatten(1))

    seen = inner[3].long()
    nothing = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    class_map = torch.cat([nothing, layout.classes.repeat_interleave(2, 1)], 1).gather(1, seen.flatten(1)).view_as(seen)
    part_map = torch.where(seen > 0, 2 - (seen & 1), 0)

    axis = (torch.arange(size, device=device) + 0.5) / size - 0.5
    near = (0.75 - 0.5 * layout.centres[:, :, 1]).clamp(0.2, 0.75).repeat_interleave(2, 1)
    near = torch.cat([nothing.float(), near], 1).gather(1, seen.flatten(1)).view_as(seen)
    slope = 0.25 * (uniform(seeds, 20)[:, None, None] - 0.5)
    depth = torch.where(seen > 0, near, 0.67 - 0.55 * axis[:, None] + slope * axis)
    slant = light.cos()[:, None, None] * axis + light.sin()[:, None, None] * axis[:, None]
    glow = 1 + 0.5 * uniform(seeds, 22)[:, None, None] * slant
    return Scene(seeds, (inner[:3] * glow).clamp_(0, 1).transpose(0, 1), class_map, part_map, depth)


def _background(seeds: Tensor, size: int) -> Float[Tensor, "3 B H W"]:
    """Two colours mixed by clouds, with blotches and thin lines of two more: clutter that belongs to no class."""
    base = (0.22 + 0.5 * colours(seeds, 10, 4)).permute(1, 2, 0)[..., None, None]
    mix = clouds(seeds, 40, size, octaves=6, persistence=0.62)
    blotches = clouds(seeds, 50, size, coarsest=4, octaves=3)
    colour = base[0] + (base[1] - base[0]) * mix
    colour = torch.lerp(colour, base[2] * (0.6 + 0.4 * mix), ((blotches - 0.62) * 12).clamp_(0, 0.6))
    return torch.lerp(colour, base[3], (1 - (blotches - 0.42).abs() * 40).clamp_(0, 1) * 0.35)


def _object_colours(seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two colours of the texture, one bright and one dark, and the body's, which is either of them."""
    pair = colours(seeds, 31, 2, dark=0.75)
    contrast = (0.05 + 0.25 * uniform(seeds, 32))[:, None]
    swap = (uniform(seeds, 33) < 0.5)[:, None]
    bright, dim = pair[:, 0], pair[:, 1] * contrast
    first, second = torch.where(swap, dim, bright), torch.where(swap, bright, dim)
    body = torch.where((uniform(seeds, 34) < 0.5)[:, None], first, second)
    return first, second, body


def _surfaces(kinds: Tensor, x: Tensor, y: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Silhouette distance and texture of every pixel. Objects come sorted by kind, so that each kind is one slice."""
    distance, pattern = torch.empty_like(x), torch.empty_like(x)
    silhouettes, textures = list(SILHOUETTES.values()), list(TEXTURES.values())
    present, counts = kinds.unique_consecutive(return_counts=True)
    start = 0
    for kind, count in zip(present.tolist(), counts.tolist()):
        cut = slice(start, start := start + count)
        distance[cut] = silhouettes[SILHOUETTE_OF[kind]](x[cut], y[cut])
        pattern[cut] = textures[TEXTURE_OF[kind]](x[cut], y[cut], phase[cut])
    return distance, pattern
