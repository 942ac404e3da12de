"""Notebook 10: masked average pooling, its background, the matrix of upsampling, HSNet's vote."""

import torch
import torch.nn.functional as F
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def pool(features: Tensor, weights: Tensor, count: float | Tensor | None = None, mode="bilinear", **resize) -> Tensor:
    """Features brought up to the size of the weights, weighed and summed, over the weights' sum or over `count`."""
    total = torch.einsum(
        "bchw,bhw->bc", F.interpolate(features, weights.shape[-2:], mode=mode, **resize), weights.float()
    )
    return total / (weights.float().sum((1, 2))[:, None] + 1e-5 if count is None else count)


def number(marked: Tensor) -> Tensor:
    """Of the marked pixels of each image [B, 1]."""
    return marked.sum((1, 2))[:, None] + 1e-5


def images() -> tuple[Tensor, Tensor]:
    """Three images of unequal objects: features on a 4x5 grid, masks of 24x20 pixels with a band of void."""
    mask = torch.zeros(3, 24, 20, dtype=torch.int64)
    for image, (top, left, height, width) in enumerate([(2, 3, 5, 6), (6, 8, 8, 9), (1, 10, 9, 8)]):
        mask[image, top - 1 : top + height + 1, left - 1 : left + width + 1] = fss.VOID
        mask[image, top : top + height, left : left + width] = 1
    return torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(1)) + 1, mask


def masks():
    features, mask = images()
    golden = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    yield "the 2x2 map", golden, torch.tensor([[[1, 0], [0, 1]]])
    yield "one small image", features[:1], (mask[:1] == 1).long()
    yield "a batch", features, (mask == 1).long()
    yield "a mask with void", features, mask
    yield "an empty mask in the batch", features, mask * torch.tensor([1, 0, 1])[:, None, None]


@Exercise(masks, "agrees with the library on {cases}", "easy", 10)
def masked_average_pooling(f, m):
    """(features [B, C, h, w], mask [B, H, W]) -> prototypes [B, C], by bringing the features up"""
    marked, batch = m == 1, (m == 1).sum() + 1e-5
    small = fss.masked_average_pooling(f, m, resize="mask")
    down = F.interpolate(marked.float()[:, None], f.shape[2:])[:, 0]
    return {
        "right": fss.masked_average_pooling(f, m),
        "the mask is not used: this is the mean over the whole image.": pool(f, torch.ones_like(m)),
        "void (255) counts as foreground here: `mask > 0` takes it in, `mask == 1` does not.": pool(f, m > 0),
        "void pixels weigh 255 each: make a mask of 0 and 1 first.": pool(f, m),
        "void (255) counts in the number of pixels: divide by that of `mask == 1`.": pool(f, marked, number(m > 0)),
        "the sum is divided by all pixels; divide by the masked ones.": pool(f, marked, m[0].numel()),
        "the sum is not divided by the number of masked pixels.": pool(f, marked, 1),
        "the sum is divided by the masked pixels of the whole batch; divide each image by its own.": pool(
            f, marked, batch
        ),
        "the mask was brought down to the grid; here the features go up to the mask's size.": small,
        "the mask was brought down to the nearest cells; here the features go up to the mask's size.": pool(f, down),
        "this is upsampling with align_corners=True; use False.": pool(f, marked, align_corners=True),
        'this is nearest-neighbour upsampling, as "area" is on the way up; use bilinear.': pool(
            f, marked, mode="nearest"
        ),
    }


@Exercise(
    lambda: [("a mask with void", *images()), ("a mask without background", images()[0], 0 * images()[1] + 1)],
    "takes in neither object nor void, and gives zeros without background",
    "easy",
    5,
)
def background_prototype(f, m):
    """(features [B, C, h, w], mask [B, H, W]) -> background prototypes [B, C]"""
    return {
        "right": fss.masked_average_pooling(f, fss.background_mask(m)),
        "this is the foreground's prototype; the background is where the mask is 0.": pool(f, m == 1),
        "void (255) counts as background here: `mask != 1` takes it in, `mask == 0` does not.": pool(f, m != 1),
        "void (255) counts in the number of pixels: divide by that of `mask == 0`.": pool(f, m == 0, number(m != 1)),
        "the weight of void pixels is 1 - 255 = -254: make a mask of 0 and 1 first.": pool(f, 1 - m),
        "this is the mean over the whole image: the mask is not used.": pool(f, torch.ones_like(m)),
        "the sum is divided by all pixels; divide by those of the background.": pool(f, m == 0, m[0].numel()),
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
        "rows at the ends add up to less than 1: a pixel beyond the last centre reads that cell alone, so keep its "
        "position within 0 and cells - 1.": hats((torch.arange(m) + 0.5) * n / m - 0.5),
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
