"""Composing and drawing scenes: which objects, where, and their pixels, for a whole batch at once.

What costs time here is memory, not arithmetic. Pixels are therefore worked on in tiles that stay in the processor's
caches, and steps overwrite what they no longer need (`mul_`, `out=`).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

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

SHADOW_REACH = 0.125
"""How far outside its outline an object's shadow ends, in radii."""

TILE_PIXELS = 2**17
"""Pixels worked on at a time, 32 images of 64 x 64: half a megabyte a plane."""

_KINDS = len(SILHOUETTE_OF)
_SILHOUETTES, _TEXTURES = list(SILHOUETTES.values()), list(TEXTURES.values())


@dataclass(frozen=True)
class Layout:
    """Where the objects of B scenes are, back to front; lengths in image sides, class -1 is no object."""

    seeds: Int[Tensor, "B"]
    classes: Int[Tensor, "B objects"]
    centres: Float[Tensor, "B objects 2"]
    radii: Float[Tensor, "B objects"]
    angles: Float[Tensor, "B objects"]

    def __getitem__(self, rows: slice) -> "Layout":
        return Layout(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Scene:
    """The clean drawing of B scenes, from which a domain makes its images.

    `class_map` holds class ids and 0 for background. `seen` tells what is in front: 2s + 1 the plain body of the object
    in slot s, 2s + 2 its textured part, 0 the background.
    """

    layout: Layout
    colour: Float[Tensor, "B 3 H W"]
    class_map: Int[Tensor, "B H W"]
    seen: Float[Tensor, "B H W"]

    @property
    def seeds(self) -> Int[Tensor, "B"]:
        return self.layout.seeds

    @functools.cached_property
    def part_map(self) -> Int[Tensor, "B H W"]:
        """1 on an object's textured part, 2 on its plain body, 0 on the background."""
        seen = self.seen.long()
        return torch.where(seen > 0, 1 + (seen & 1), 0)

    @functools.cached_property
    def depth(self) -> Float[Tensor, "B H W"]:
        """0 near, 1 far: the ground recedes upwards, and objects stand on it."""
        axis = _pixel_centres(self.colour) / self.colour.shape[-1] - 0.5
        near = (0.75 - 0.5 * self.layout.centres[:, :, 1]).clamp(0.2, 0.75)
        near = _by_object(near, self.seen)
        slope = 0.25 * (uniform(self.seeds, 20)[:, None, None] - 0.5)
        return (slope * axis + (0.67 - 0.55 * axis[:, None])).lerp_(near, (self.seen > 0).float())

    def __len__(self) -> int:
        return len(self.colour)

    def __getitem__(self, rows: slice) -> "Scene":
        return Scene(*(getattr(self, f.name)[rows] for f in fields(self)))


def tiles(count: int, size: int) -> list[slice]:
    """Cut a batch of `count` images with sides of `size` pixels into tiles."""
    step = max(1, TILE_PIXELS // size**2)
    return [slice(start, start + step) for start in range(0, count, step)]


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

    is_wanted = torch.arange(slots, device=seeds.device) < needed.clamp(min=1)[:, None]
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
    seeds, batch = layout.seeds, len(layout.seeds)
    towards = 2 * math.pi * uniform(seeds, 21)
    light = torch.stack([towards.cos(), towards.sin()], 1)
    colour = torch.empty(batch, 3, size, size, device=seeds.device)
    seen = torch.zeros(batch, size, size, device=seeds.device)
    class_map = torch.empty(batch, size, size, dtype=torch.int64, device=seeds.device)

    palette = (0.22 + 0.5 * colours(seeds, 10, 4)).mT.contiguous()
    for tile in tiles(batch, size):
        _paint_background(seeds[tile], palette[tile], colour[tile])
    _paint_objects(layout, light, colour, seen)

    axis = _pixel_centres(colour) / size - 0.5
    glow = 0.5 * uniform(seeds, 22)[:, None, None] * light[:, :, None] * axis
    across, down = 1 + glow[:, 0, None, None, :], glow[:, 1, None, :, None]
    for tile in tiles(batch, size):
        colour[tile].mul_(across[tile] + down[tile]).clamp_(0, 1)
        class_map[tile] = _by_object(layout.classes[tile], seen[tile])
    return Scene(layout, colour, class_map, seen)


def _pixel_centres(image: Tensor) -> Float[Tensor, "size"]:
    return torch.arange(image.shape[-1], device=image.device) + 0.5


def _by_object(values: Tensor, seen: Float[Tensor, "B H W"]) -> Tensor:
    """At every pixel the value [B, objects] of the object that is seen there, 0 on the background."""
    table = torch.cat([torch.zeros_like(values[:, :1]), values.repeat_interleave(2, 1)], 1)
    return table.gather(1, seen.long().flatten(1)).view_as(seen)


def _paint_background(seeds: Tensor, palette: Float[Tensor, "B 3 4"], colour: Float[Tensor, "B 3 H W"]) -> None:
    """Two colours mixed by clouds, with blotches and thin lines of two more: clutter that belongs to no class."""
    size = colour.shape[-1]
    mix = clouds(seeds, 40, size, octaves=6, persistence=0.62)
    uneven = clouds(seeds, 50, size, coarsest=4, octaves=3)
    line = (uneven - 0.42).abs_().mul_(-40).add_(1).clamp_(0, 1).mul_(0.35)
    blotch = uneven.sub_(0.62).mul_(12).clamp_(0, 0.6)
    uncovered = 1 - line
    ground = (1 - blotch).mul_(uncovered)

    share = torch.empty(len(seeds), 4, size, size, device=seeds.device)
    torch.mul(ground, mix, out=share[:, 1])
    torch.sub(ground, share[:, 1], out=share[:, 0])
    torch.mul(blotch.mul_(uncovered), mix.mul_(0.4).add_(0.6), out=share[:, 2])
    share[:, 3] = line
    torch.bmm(palette, share.flatten(2), out=colour.flatten(2))


def _paint_objects(
    layout: Layout, light: Tensor, colour: Float[Tensor, "B 3 H W"], seen: Float[Tensor, "B H W"]
) -> None:
    """Paint all objects with their shadows, back to front, and mark in `seen` where they are.

    Objects of the same slot and class are worked on together, each in a square window.
    """
    size, device = colour.shape[-1], colour.device
    slot, image = (layout.classes.T >= 0).nonzero().unbind(1)
    kind = layout.classes[image, slot] - FIRST_ID
    key, order = (slot * _KINDS + kind).sort(stable=True)
    slot, image, kind = slot[order], image[order], kind[order]
    centre, radius = layout.centres[image, slot] * size, layout.radii[image, slot, None] * size
    reach = torch.tensor(_reaches(), device=device)[kind] * radius[:, 0]
    groups = _groups(key.tolist(), reach.tolist(), size)
    if not groups:
        return

    counts = [group.count for group in groups]
    window = torch.tensor([group.window for group in groups], device=device)
    window = window.repeat_interleave(torch.tensor(counts, device=device))[:, None]
    corner = (centre - window / 2).round().clamp(min=0).minimum(size - window)
    pixels = corner[:, :, None] + (torch.arange(max(group.window for group in groups), device=device) + 0.5)
    right, below = ((pixels - centre[:, :, None]) / radius[:, :, None]).unbind(1)
    cos, sin = layout.angles[image, slot, None].cos(), layout.angles[image, slot, None].sin()
    own_seeds = layout.seeds[image] * 8 + slot
    first, second, plain = _object_colours(own_seeds)
    # Sums of a row and a column vector: object coordinates x and y, light.
    rows = torch.stack([cos * right, -sin * right, 1 + 0.22 * light[image, :1] * right])[:, :, None, :]
    columns = torch.stack([sin * below, cos * below, 0.22 * light[image, 1:] * below])[:, :, :, None]
    per_object = (
        *rows,
        *columns,
        radius[:, :, None],
        uniform(own_seeds, 30)[:, None, None],
        plain[:, None, None],
        torch.stack([first, second - first], 2),
    )
    places = zip(image.tolist(), *corner.long().T.tolist())
    for group, tensors in zip(groups, zip(*(t.split(counts) for t in per_object))):
        paint, keep, number = _painted(group, *tensors)
        for one_paint, one_keep, one_number in zip(paint.unbind(), keep.unbind(), number.unbind()):
            at, left, top = next(places)
            under = colour[at].narrow(1, top, group.window).narrow(2, left, group.window)
            torch.addcmul(one_paint, under, one_keep, out=under)
            # Later slots have higher numbers, so that what is in front wins.
            mark = seen[at].narrow(0, top, group.window).narrow(1, left, group.window)
            torch.maximum(mark, one_number, out=mark)


@dataclass(frozen=True)
class _Group:
    """`count` objects of one slot and one class (`kind` from 0), each in a window of `window` x `window` pixels."""

    slot: int
    kind: int
    window: int
    count: int


def _groups(keys: Sequence[int], reaches: Sequence[float], size: int) -> list[_Group]:
    """Group objects in order of `keys` (slot * kinds + kind); the farthest reach, in pixels, sets a group's window."""
    groups = []
    for key, members in itertools.groupby(zip(keys, reaches), key=lambda member: member[0]):
        reach = [own_reach for _, own_reach in members]
        window = min(size, 2 * math.ceil(max(reach)) + 2)
        most = max(1, TILE_PIXELS // window**2)
        groups += [_Group(*divmod(key, _KINDS), window, len(reach[k : k + most])) for k in range(0, len(reach), most)]
    return groups


def _painted(
    group: _Group,
    x_row: Float[Tensor, "N 1 pixels"],
    y_row: Float[Tensor, "N 1 pixels"],
    light_row: Float[Tensor, "N 1 pixels"],
    x_column: Float[Tensor, "N pixels 1"],
    y_column: Float[Tensor, "N pixels 1"],
    light_column: Float[Tensor, "N pixels 1"],
    radius: Float[Tensor, "N 1 1"],
    phase: Float[Tensor, "N 1 1"],
    plain: Float[Tensor, "N 1 1"],
    palette: Float[Tensor, "N 3 2"],
) -> tuple[Float[Tensor, "N 3 w w"], Float[Tensor, "N w w"], Float[Tensor, "N w w"]]:
    """A group's windows: paint to add, the share to keep of what is underneath, and the numbers for `Scene.seen`.

    `plain` tells which of the two colours the body has, `palette` holds the first colour and the step to the second.
    """
    row, column = (slice(None), slice(None), slice(group.window)), (slice(None), slice(group.window))
    x, y = x_column[column] + x_row[row], y_column[column] + y_row[row]
    distance = _SILHOUETTES[SILHOUETTE_OF[group.kind]](x, y)
    pattern = _TEXTURES[TEXTURE_OF[group.kind]](x, y, phase)
    textured = y.lt_(0.55)
    pattern = torch.lerp(plain, pattern, textured)

    shadow = (distance * (-0.4 / SHADOW_REACH)).add_(0.6).clamp_(0.6, 1)
    edge = distance.mul_(radius).add_(0.5)
    alpha = edge.clamp(0, 1)
    share = torch.empty(group.count, 2, group.window, group.window, device=x.device)
    torch.mul(alpha, light_column[column] + light_row[row], out=share[:, 0])
    torch.mul(share[:, 0], pattern, out=share[:, 1])
    paint = torch.bmm(palette, share.flatten(2)).view(group.count, 3, group.window, group.window)
    keep = shadow.mul_(1 - alpha)
    number = edge.gt_(0.5).mul_(textured.add_(2 * group.slot + 1))
    return paint, keep, number


@functools.lru_cache(maxsize=1)
def _reaches() -> list[float]:
    """How far the objects of each kind and their shadows reach to any side at any tilt, in radii."""
    radius = torch.linspace(0, 1.6, 321)[:, None]
    angle = torch.arange(720) * (2 * math.pi / 720)
    tilt = torch.linspace(-MOST_TILT, MOST_TILT, 19)[:, None]
    sideways = torch.maximum((angle + tilt).cos().abs(), (angle + tilt).sin().abs()).amax(0)
    x, y = radius * angle.cos(), radius * angle.sin()
    reaches = [
        (radius * sideways * (silhouette(x, y) > -SHADOW_REACH)).max().item() + 0.01 for silhouette in _SILHOUETTES
    ]
    return [reaches[k] for k in SILHOUETTE_OF]


def _object_colours(seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two colours of the texture, one bright and one dark, and which of them the body has: 0 or 1."""
    pair = colours(seeds, 31, 2, dark=0.75)
    contrast = (0.05 + 0.25 * uniform(seeds, 32))[:, None]
    swap = (uniform(seeds, 33) < 0.5)[:, None]
    bright, dim = pair[:, 0], pair[:, 1] * contrast
    first, second = torch.where(swap, dim, bright), torch.where(swap, bright, dim)
    return first, second, (uniform(seeds, 34) >= 0.5).float()
