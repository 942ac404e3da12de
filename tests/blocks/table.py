"""Every function of the blocks as a row: how it is called, what it is given, and its definition once more in NumPy.

test_blocks.py asks all of them, and tests/gpu/test_device.py asks them on another device.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsslib.blocks import adversarial, contrast, memory, pooling, similarity
from fsslib.episodes import VOID


@dataclass(frozen=True)
class Block:
    """`call` and `oracle` take the float inputs, then `labels`: a label map, class ids, or nothing at all.

    The result is float32 at least, whatever it is made of, or has the dtype of its inputs and one rounding.
    """

    call: Callable
    oracle: Callable
    shapes: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    options: tuple[Mapping, ...] = ({},)
    positive: bool = False
    keeps_dtype: bool = False

    def drawn(self, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        floats = [2 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in self.shapes]
        if self.positive:
            floats = [x.abs() + 0.05 for x in floats]
        if not self.labels:
            return floats, []
        return floats, [torch.tensor(self.values)[torch.randint(len(self.values), self.labels, generator=generator)]]


def every(**choices: tuple) -> tuple[Mapping, ...]:
    return tuple(dict(zip(choices, values)) for values in itertools.product(*choices.values()))


# The definitions once more, in NumPy, number by number


def chances(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def cosine(one, other):
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths else 0.0


def known(labels):
    """The places that are not void, with their class."""
    return [(place, c) for place, c in np.ndenumerate(labels) if c != VOID]


def difficulty(logits, labels):
    result, chance = np.zeros(labels.shape), chances(logits)
    for (b, y, x), c in known(labels):
        result[b, y, x] = -np.log(chance[b, c, y, x])
    return result


def balance(labels, count_ignored=False):
    result = np.zeros(labels.shape)
    for (b, y, x), c in known(labels):
        result[b, y, x] = 1 - (labels[b] == c).sum() / (labels[b].size if count_ignored else (labels[b] != VOID).sum())
    return result


def pixadv(logits, domain, labels, use_difficulty, use_balance, count_ignored, normalise_map, reduce, **_):
    weights, valid = (labels != VOID).astype(float), max((labels != VOID).sum(), 1)
    weights = weights * difficulty(logits, labels) if use_difficulty else weights
    weights = weights * balance(labels, count_ignored) if use_balance else weights
    if normalise_map and weights.any():
        weights = weights / (weights.sum() / valid)
    fooling = -np.log(1 - 1 / (1 + np.exp(-domain[:, 0])))
    return (fooling * weights).sum() / (valid if reduce == "valid" else labels.size)


def focal(logits, labels, gamma=2.0, as_released=False):
    chance, costs = chances(logits), []
    for (b, y, x), c in known(labels):
        p = chance[b, c, y, x] + (1e-6 if as_released else 0)
        weight = (0.25 if c == 2 else 0.75) if as_released else 1
        costs.append(weight * (1 - p) ** gamma * -np.log(p))
    return np.mean(costs)


def distillation(student, teacher, teacher_temperature, class_reduce):
    terms = -chances(teacher / teacher_temperature) * np.log(chances(student))
    return terms.mean() if class_reduce == "mean" else terms.sum(1).mean()


def domain_loss(logits, domain):
    target = 1 / (1 + np.exp(-logits))
    return -np.log(target if domain == "target" else 1 - target).mean()


def contrastive(anchors, positives, ids=None, *, temperature, symmetric):
    def terms(mine, theirs):
        for i in range(len(mine)):
            others = [j for j in range(len(mine)) if j != i and (ids is None or ids[j] != ids[i])]
            rows = [(mine[i], theirs[i]), *((mine[i], other[j]) for j in others for other in (mine, theirs))]
            alike = [np.exp(cosine(*row) / temperature) for row in rows]
            yield -np.log(alike[0] / sum(alike))

    total = sum(terms(anchors, positives)) + (sum(terms(positives, anchors)) if symmetric else 0)
    return total / (2 * len(anchors))


def segmentation(features, foreground, background, labels, scale=20.0):
    return difficulty(scaled_cosines(features, foreground, background, scale), labels)[labels != VOID].mean()


def orthogonality(means, stds, centred, diagonal):
    costs = []
    for bank in (means, stds):
        bank = bank - bank.mean(0) if centred else bank
        pairs = itertools.product(range(len(bank)), repeat=2)
        costs += [abs(cosine(bank[i], bank[j])) for i, j in pairs if i != j or diagonal]
    return np.mean(costs)


def resized(plane, size, align_corners):
    """Bilinear interpolation of one plane, pixel by pixel."""
    result = np.zeros(size)
    for out in np.ndindex(*size):
        corners = []
        for place, cells, pixels in zip(out, plane.shape, size):
            if align_corners:
                at = place * (cells - 1) / (pixels - 1) if pixels > 1 else 0.0
            else:
                at = max((place + 0.5) * cells / pixels - 0.5, 0.0)
            low = min(int(at), cells - 1)
            corners.append([(low, 1 - (at - low)), (min(low + 1, cells - 1), at - low)])
        result[out] = sum(wy * wx * plane[y, x] for y, wy in corners[0] for x, wx in corners[1])
    return result


def pooled(features, masks, resize="features", align_corners=False, eps=1e-5):
    """Bring both to one size, then add up pixel by pixel."""
    result = np.zeros(features.shape[:2])
    for b, (maps, mask) in enumerate(zip(features, masks)):
        weights = (mask == 1).astype(float)
        if resize == "features":
            maps = [resized(plane, mask.shape, align_corners) for plane in maps]
        else:
            weights = resized(weights, maps.shape[1:], align_corners)
        result[b] = [(weights * plane).sum() / (weights.sum() + eps) for plane in maps]
    return result


def cosines(features, prototypes):
    return np.array(
        [[[cosine(place, p) for place in row.T] for row in np.moveaxis(f, 0, 1)] for f, p in zip(features, prototypes)]
    )


def scaled_cosines(features, foreground, background, scale=20.0):
    return scale * np.stack([cosines(features, background), cosines(features, foreground)], 1)


def statistics(features):
    return np.stack([features.mean((2, 3)), np.sqrt(features.var((2, 3)) + 1e-5)], 1)


def restyled(features, mean, std, alpha):
    own_mean, own_std = np.moveaxis(statistics(features), 1, 0)
    mixed = [(alpha * own + (1 - alpha) * other)[..., None, None] for own, other in ((own_mean, mean), (own_std, std))]
    return (features - own_mean[..., None, None]) / own_std[..., None, None] * mixed[1] + mixed[0]


MAP, JUDGED, VECTORS, LABELS, CLASSES = (2, 4, 3, 4), (2, 1, 3, 4), (2, 4), (2, 3, 4), (0, 1, 2, 3, VOID)
PAIR, BOTH = ((5, 6), (5, 6)), (True, False)
CHOICES = dict.fromkeys(("use_difficulty", "use_balance", "count_ignored", "normalise_map", "detach_maps"), BOTH)
PIXADV = every(reduce=("valid", "all"), **CHOICES)
FOCAL = ({}, {"as_released": True}, *every(gamma=(0.0, 0.5, 1.0, 5.0)))
DISTILLATION = every(teacher_temperature=(0.5, 1.0, 2.0), class_reduce=("mean", "sum"))
CONTRAST = every(temperature=(0.1, 1.0), symmetric=BOTH)
ORTHOGONALITY = every(centred=BOTH, diagonal=BOTH)
POOLING = ({}, *every(resize=("features", "mask"), align_corners=(False, True), eps=(1e-5, 1e-2)))
# Same size, whole strides, 8k + 1, a stride that is no whole number, a grid finer than the image, one cell.
GRIDS = [
    ((4, 5), (4, 5)),
    ((4, 4), (16, 32)),
    ((3, 4), (17, 25)),
    ((5, 3), (13, 20)),
    ((7, 6), (4, 5)),
    ((1, 1), (6, 4)),
]
SEGMENTED = MAP, VECTORS, VECTORS


def balance_map(labels, **how):
    return adversarial.class_balance_map(labels, 4, **how)


def stacked_statistics(features):
    return torch.stack(memory.feature_statistics(features), 1)


def pooling_block(grid, size):
    shapes = ((2, 3, *grid),)
    return Block(pooling.masked_average_pooling, pooled, shapes, (2, *size), (0, 1, VOID), POOLING, keeps_dtype=True)


BLOCKS = {
    "difficulty map": Block(adversarial.pixel_difficulty_map, difficulty, (MAP,), LABELS, CLASSES),
    "balance map": Block(balance_map, balance, (), LABELS, CLASSES, every(count_ignored=BOTH)),
    "pixadv": Block(adversarial.pixadv_loss, pixadv, (MAP, JUDGED), LABELS, CLASSES, PIXADV),
    "focal": Block(adversarial.focal_loss, focal, (MAP,), LABELS, CLASSES, FOCAL),
    "distillation": Block(adversarial.distillation_loss, distillation, (MAP, MAP), options=DISTILLATION),
    "domain": Block(adversarial.domain_loss, domain_loss, (JUDGED,), options=every(domain=("source", "target"))),
    "contrast of images": Block(contrast.prototype_contrastive_loss, contrastive, PAIR, options=CONTRAST),
    "contrast of classes": Block(contrast.prototype_contrastive_loss, contrastive, PAIR, (5,), (3, 7, 8), CONTRAST),
    "prototype loss": Block(
        contrast.prototype_segmentation_loss, segmentation, SEGMENTED, LABELS, (0, 1, VOID), ({}, {"scale": 1.0})
    ),
    "orthogonality": Block(memory.orthogonality_loss, orthogonality, PAIR, options=ORTHOGONALITY, positive=True),
    "cosine map": Block(similarity.cosine_similarity_map, cosines, (MAP, VECTORS)),
    "prototype logits": Block(similarity.prototype_logits, scaled_cosines, SEGMENTED, options=({}, {"scale": 1.0})),
    "statistics": Block(stacked_statistics, statistics, (MAP,)),
    "restyle": Block(memory.restyle, restyled, SEGMENTED, options=every(alpha=(0.0, 0.3, 1.0)), keeps_dtype=True),
    **{f"pooling {grid} of {size}": pooling_block(grid, size) for grid, size in GRIDS},
}
