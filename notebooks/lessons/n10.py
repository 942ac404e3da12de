"""Notebook 10: the prototype of several shots, the matrix of upsampling, what surrounds an object, HSNet's vote."""

import torch
import torch.nn.functional as F
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def pool(features: Tensor, weights: Tensor, count: float | Tensor | None = None, mode="bilinear", **resize) -> Tensor:
    """Features brought up to the size of the weights, weighed and summed, over the weights' sum or over `count`."""
    large = F.interpolate(features, weights.shape[-2:], mode=mode, **resize)
    total = torch.einsum("bchw,bhw->bc", large, weights.float())
    return total / (weights.float().sum((1, 2))[:, None] + 1e-5 if count is None else count)


def images() -> tuple[Tensor, Tensor]:
    """Three images of unequal objects: features on a 4x5 grid, masks of 24x20 pixels with a band of void."""
    mask = torch.zeros(3, 24, 20, dtype=torch.int64)
    for image, (top, left, height, width) in enumerate([(2, 3, 5, 6), (6, 8, 8, 9), (1, 10, 9, 8)]):
        mask[image, top - 1 : top + height + 1, left - 1 : left + width + 1] = fss.VOID
        mask[image, top : top + height, left : left + width] = 1
    return torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(1)) + 1, mask


def supports():
    """Batches of three shots; of some the mask is empty, or has nothing but void."""
    features, mask = images()
    features, masks = torch.stack([features, features.flip(0)]), torch.stack([mask, mask.roll(1, 0)])
    empty, unsure = masks * torch.tensor([1, 0, 1])[:, None, None], masks.where(masks != 1, 0)
    yield "three shots", features[:1], (masks[:1] == 1).long()
    yield "a batch with void", features, masks
    yield "an empty mask among the shots", features, empty
    yield "a mask of nothing but void", features, torch.cat([unsure[:, :1], masks[:, 1:]], 1)
    yield "nobody shows the object", features, torch.stack([unsure[0], empty[1]])


@Exercise(supports, "is right for {cases}", "medium", 15)
def prototype_of_shots(f, m):
    """(features [B, K, C, h, w], masks [B, K, H, W]) -> [B, C], the mean over the shots that show the object"""
    flat, masks = f.flatten(0, 1), m.flatten(0, 1)
    marked, shows = masks == 1, (m == 1).flatten(2).any(2)

    def mean(prototypes, counted=shows):
        counted = counted[:, :, None].float()
        return (prototypes.view(*m.shape[:2], -1) * counted).sum(1) / counted.sum(1).clamp(min=1)

    each, unsure = fss.masked_average_pooling(flat, masks), (m > 0).flatten(2).any(2)
    known = (masks > 0).sum((1, 2))[:, None] + 1e-5
    small = fss.masked_average_pooling(flat, masks, resize="mask")
    at_once = mean(pool(flat, marked, 1)) * shows.sum(1)[:, None] / ((m == 1).sum((1, 2, 3))[:, None] + 1e-5)
    return {
        "right": mean(each),
        "a shot without the object has no say: leave it out of the mean.": mean(each, torch.ones_like(shows)),
        "a shot of nothing but void does not show the object.": mean(each, unsure),
        "the pixels of all shots are pooled at once: a large object has more say than a small one.": at_once,
        "this is a sum; divide by the number of shots that show the object.": mean(each) * shows.sum(1)[:, None],
        "the masks are not used: this is the mean over the whole image.": mean(pool(flat, torch.ones_like(masks))),
        "void (255) counts as foreground here: `mask > 0` takes it in.": mean(pool(flat, masks > 0)),
        "void pixels weigh 255 each: make a mask of 0 and 1 first.": mean(pool(flat, masks)),
        "void (255) counts in the number of pixels.": mean(pool(flat, marked, known)),
        "the masks were brought down to the grid; here the features go up to the masks' size.": mean(small),
    }


def upsampling(cells: int, pixels: int, mode: str = "linear", **options) -> Tensor:
    """The matrix [pixels, cells] that torch's interpolation multiplies with."""
    return F.interpolate(torch.eye(cells)[None], pixels, mode=mode, **options)[0].T


@Exercise(
    lambda: [(f"{n} cells to {m} pixels", n, m) for n, m in ((2, 4), (4, 4), (3, 12), (5, 13), (1, 6))],
    "agrees with torch on 2 to 4, 4 to 4, 3 to 12, 5 to 13, 1 to 6",
    "hard",
    15,
)
def upsampling_matrix(n, m):
    """(cells, pixels) -> matrix [pixels, cells] that interpolates linearly, align_corners=False"""
    centre = "the centre of pixel p lies at (p + 0.5) * cells / pixels - 0.5."

    def hats(at):
        return (1 - (at[:, None] - torch.arange(n)).abs()).clamp(min=0)

    return {
        "right": upsampling(n, m),
        "this is the transposed matrix [cells, pixels]; the rows are pixels.": upsampling(n, m).T,
        f"this is align_corners=True: {centre}": upsampling(n, m, align_corners=True),
        f"the halves are missing: {centre}": hats((torch.arange(m) * n / m).clamp(max=n - 1)),
        "each pixel copies one cell; a pixel between two cells reads both.": upsampling(n, m, "nearest"),
        "rows at the ends add up to less than 1: beyond the last centre a pixel reads that cell alone.": hats(
            (torch.arange(m) + 0.5) * n / m - 0.5
        ),
    }


@Exercise(
    lambda: (
        [(f"width {width}", *images(), width) for width in (3, 6)]
        + [("an object without surroundings", images()[0], 0 * images()[1] + 1, 2)]
    ),
    "takes in neither object nor void, and gives zeros where there is no background",
    "medium",
    15,
)
def ring_prototype(f, m, width):
    """(features [B, C, h, w], mask [B, H, W], width) -> [B, C], of the background at most `width` pixels away"""

    def near(marked, reach=width):
        return F.max_pool2d(marked.float(), 2 * reach + 1, stride=1, padding=reach) == 1

    grown, narrow = near(m == 1), near(m == 1, width // 2)
    ring = grown & (m == 0)
    return {
        "right": fss.masked_average_pooling(f, ring.long()),
        "this is all of the background; only what is near the object is asked for.": pool(f, m == 0),
        "this is the object's prototype; the ring is where the mask is 0.": pool(f, m == 1),
        "the object is in it: the ring is where the mask is 0.": pool(f, grown & (m != fss.VOID)),
        "void (255) counts as background here: `mask != 1` takes it in.": pool(f, grown & (m != 1)),
        "the width is counted from the void rim; count it from the object.": pool(f, near(m > 0) & (m == 0)),
        "the window is too narrow: `width` pixels on each side make 2 width + 1.": pool(f, narrow & (m == 0)),
        "the weight of void pixels is 1 - 255 = -254: make a mask of 0 and 1 first.": pool(f, grown * (1 - m)),
        "the sum is divided by all pixels; divide by those of the ring.": pool(f, ring, m[0].numel()),
    }


def shots():
    drawn = (torch.rand(3, 5, 6, 8, generator=torch.Generator().manual_seed(2)) < 0.5).long()
    # At most 2, 3 and 4 votes: the largest vote differs between the images, and none is K.
    drawn *= drawn.cumsum(1) <= torch.tensor([2, 3, 4])[:, None, None, None]
    for votes in ([0, 1, 3, 5, 2], [0, 1, 2, 2, 1]):
        predictions = (torch.arange(5)[:, None] < torch.tensor(votes)).long()[None, :, None]
        yield f"golden votes {' '.join(map(str, votes))}", predictions
    yield "one image", drawn[:1, :4]
    yield "a batch", drawn
    yield "an image without votes", drawn * torch.tensor([0, 1, 1])[:, None, None, None]


@Exercise(shots, "agrees with the library on {cases}", "medium", 10)
def vote(p):
    """(predictions [B, K, H, W] of 0 and 1) -> merged [B, H, W], by HSNet's rule"""
    votes, shots = p.sum(1), p.shape[1]
    most, of_row = votes.amax((1, 2), keepdim=True), votes.amax(2, keepdim=True).clamp(min=1)
    instead = "divide by the largest vote in the image instead of K."
    return {
        "right": fss.merge_shots(p, rule="vote"),
        f"this is the majority of the K shots; {instead}": 2 * votes > shots,
        f"this is half of the K shots or more; {instead}": 2 * votes >= shots,
        "a pixel with exactly half of the largest vote is foreground: compare with >=.": 2 * votes > most,
        "the largest vote is taken over the whole batch; take it in each image.": 2 * votes >= votes.max().clamp(min=1),
        "the largest vote is taken in each row of pixels; take it in each image.": 2 * votes >= of_row,
        "these are numbers of votes: foreground is from half of the largest vote on.": votes,
        "this is the union: one vote is only enough where no pixel has more than two.": votes > 0,
        "this is the intersection: half of the largest vote is enough.": p.amin(1),
        "only the largest vote passes here; half of it is enough.": votes >= most.clamp(min=1),
        "an image without any vote stays background: keep the largest vote from below by 1.": 2 * votes >= most,
    }
