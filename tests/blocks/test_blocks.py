"""Every function of the blocks, a row each: against NumPy, void, order, gradients, precision, what it refuses. 6 s.

What is special about one of them is in the file of its lesson.
"""

import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
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
    costs = []
    for (b, y, x), k in known(labels):
        logits = scale * np.array([cosine(features[b, :, y, x], p[b]) for p in (background, foreground)])
        costs.append(np.log(np.exp(logits).sum()) - logits[k])
    return np.mean(costs)


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


def pooled(features, masks, resize, align_corners, eps=1e-5):
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


def statistics(features):
    return np.stack([features.mean((2, 3)), np.sqrt(features.var((2, 3)) + 1e-5)], 1)


def restyled(features, mean, std, alpha):
    own_mean, own_std = np.moveaxis(statistics(features), 1, 0)
    mixed = [(alpha * own + (1 - alpha) * other)[..., None, None] for own, other in ((own_mean, mean), (own_std, std))]
    return (features - own_mean[..., None, None]) / own_std[..., None, None] * mixed[1] + mixed[0]


MAP, LABELS, CLASSES = (2, 4, 3, 4), (2, 3, 4), (0, 1, 2, 3, VOID)
PIXADV = every(
    use_difficulty=(True, False),
    use_balance=(True, False),
    count_ignored=(True, False),
    normalise_map=(True, False),
    reduce=("valid", "all"),
    detach_maps=(True, False),
)
POOLING = every(resize=("features", "mask"), align_corners=(False, True), eps=(1e-5, 1e-2))
# Same size, whole strides, 8k + 1, a stride that is no whole number, a grid finer than the image, one cell.
GRIDS = [
    ((4, 5), (4, 5)),
    ((4, 4), (16, 32)),
    ((3, 4), (17, 25)),
    ((5, 3), (13, 20)),
    ((7, 6), (4, 5)),
    ((1, 1), (6, 4)),
]
CONTRAST = every(temperature=(0.1, 1.0), symmetric=(True, False))
BLOCKS = {
    "difficulty map": Block(adversarial.pixel_difficulty_map, difficulty, (MAP,), LABELS, CLASSES),
    "balance map": Block(
        lambda labels, **how: adversarial.class_balance_map(labels, 4, **how),
        balance,
        (),
        LABELS,
        CLASSES,
        every(count_ignored=(True, False)),
    ),
    "pixadv": Block(adversarial.pixadv_loss, pixadv, (MAP, (2, 1, 3, 4)), LABELS, CLASSES, PIXADV),
    "focal": Block(
        adversarial.focal_loss,
        focal,
        (MAP,),
        LABELS,
        CLASSES,
        ({}, {"as_released": True}, *every(gamma=(0.0, 0.5, 1.0, 5.0))),
    ),
    "distillation": Block(
        adversarial.distillation_loss,
        distillation,
        (MAP, MAP),
        options=every(teacher_temperature=(0.5, 1.0, 2.0), class_reduce=("mean", "sum")),
    ),
    "domain": Block(adversarial.domain_loss, domain_loss, ((2, 1, 3, 4),), options=every(domain=("source", "target"))),
    "contrast of images": Block(contrast.prototype_contrastive_loss, contrastive, ((5, 6), (5, 6)), options=CONTRAST),
    "contrast of classes": Block(
        contrast.prototype_contrastive_loss, contrastive, ((5, 6), (5, 6)), (5,), (3, 7, 8), CONTRAST
    ),
    "prototype segmentation": Block(
        contrast.prototype_segmentation_loss,
        segmentation,
        (MAP, (2, 4), (2, 4)),
        LABELS,
        (0, 1, VOID),
        ({}, {"scale": 1.0}),
    ),
    "orthogonality": Block(
        memory.orthogonality_loss,
        orthogonality,
        ((5, 6), (5, 6)),
        options=every(centred=(True, False), diagonal=(True, False)),
        positive=True,
    ),
    "cosine map": Block(similarity.cosine_similarity_map, cosines, (MAP, (2, 4))),
    "prototype logits": Block(
        similarity.prototype_logits,
        lambda f, one, other, scale=20.0: scale * np.stack([cosines(f, other), cosines(f, one)], 1),
        (MAP, (2, 4), (2, 4)),
        options=({}, {"scale": 1.0}),
    ),
    "statistics": Block(lambda f: torch.stack(memory.feature_statistics(f), 1), statistics, (MAP,)),
    "restyle": Block(
        memory.restyle, restyled, (MAP, (2, 4), (2, 4)), options=every(alpha=(0.0, 0.3, 1.0)), keeps_dtype=True
    ),
} | {
    f"pooling {grid} of {size}": Block(
        pooling.masked_average_pooling, pooled, ((2, 3, *grid),), (2, *size), (0, 1, VOID), POOLING, keeps_dtype=True
    )
    for grid, size in GRIDS
}
ALL = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
HAVE_FLOATS = {name: block for name, block in BLOCKS.items() if block.shapes}
HAVE_VOID = {name: block for name, block in BLOCKS.items() if VOID in block.values}
FLOATS = pytest.mark.parametrize("block", HAVE_FLOATS.values(), ids=HAVE_FLOATS)
WITH_VOID = pytest.mark.parametrize("block", HAVE_VOID.values(), ids=HAVE_VOID)


@ALL
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999))
def test_it_equals_its_definition(block, seed):
    floats, labels = block.drawn(seed)
    for options in block.options:
        found = block.call(*floats, *labels, **options)
        expected = block.oracle(*(x.numpy() for x in (*floats, *labels)), **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=str(options))


@WITH_VOID
def test_void_pixels_have_no_influence_and_all_void_costs_nothing(block):
    floats, (labels,) = block.drawn()
    void = (labels == VOID)[:, None]
    elsewhere = [torch.where(void, 7.0, x) if x.shape[2:] == labels.shape[1:] else x for x in floats]
    nothing, leaves = torch.full_like(labels, VOID), [x.clone().requires_grad_() for x in floats]
    for options in block.options:
        found = block.call(*elsewhere, labels, **options)
        torch.testing.assert_close(found, block.call(*floats, labels, **options), msg=str(options))
        empty = block.call(*leaves, nothing, **options)
        assert (empty == 0).all()
        if empty.requires_grad:
            empty.sum().backward()
    assert all(x.grad is not None and (x.grad == 0).all() for x in leaves)


@ALL
def test_the_order_of_the_batch_does_not_matter(block):
    given_inputs = [x for part in block.drawn() for x in part]
    order = torch.tensor([1, 0, *range(2, len(given_inputs[0]))])
    for options in block.options:
        found = block.call(*given_inputs, **options)
        moved = block.call(*(x[order] for x in given_inputs), **options)
        torch.testing.assert_close(moved, found[order] if found.ndim else found, msg=str(options))


@FLOATS
def test_gradients(block):
    """Of float64, where what is a weight by design is attached."""
    floats, labels = block.drawn()
    wanted = [x.requires_grad_(block.call is not adversarial.distillation_loss or x is floats[0]) for x in floats]
    for options in block.options[::3]:
        options = options | ({"detach_maps": False, "normalise_map": False} if "detach_maps" in options else {})
        assert torch.autograd.gradcheck(lambda *x, how=options: block.call(*x, *labels, **how), wanted)


@FLOATS
@pytest.mark.parametrize("factor", [1e4, 0.0], ids=["extreme", "nothing but zeros"])
def test_extreme_and_empty_inputs_give_finite_values_and_gradients(block, factor):
    floats, labels = block.drawn()
    for options in block.options:
        leaves = [(factor * x).float().requires_grad_() for x in floats]
        found = block.call(*leaves, *labels, **options)
        if found.requires_grad:
            found.sum().backward()
        assert torch.isfinite(found).all(), options
        assert all(x.grad is None or torch.isfinite(x.grad).all() for x in leaves), options


@pytest.mark.parametrize("name", sorted(HAVE_FLOATS.keys() - {"orthogonality"}))  # of parameters, float32 always
def test_low_precision_rounds_the_inputs_and_nothing_else(name):
    block = BLOCKS[name]
    floats, labels = block.drawn()
    coarse = [x.bfloat16() for x in floats]
    for options in block.options:
        expected = block.call(*(x.float() for x in coarse), *labels, **options)
        found = block.call(*coarse, *labels, **options)
        assert found.dtype == (torch.bfloat16 if block.keeps_dtype else torch.float32)
        assert torch.equal(found, expected.to(found.dtype)), options
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(block.call(*(x.float() for x in coarse), *labels, **options), expected)


# What is refused. The shape checks of the tests would refuse some of it before the function can.

LOGITS, DOMAIN = torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
GROUND = torch.zeros(2, 8, 8, dtype=torch.int64)
PROTOTYPES = torch.ones(2, 6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adversarial.domain_loss(DOMAIN, "Target"), 'domain is "source" or "target"; found \'Target\''),
        (lambda: adversarial.pixel_difficulty_map(LOGITS[..., ::4, ::4], GROUND), "logits are 2x2, the labels 8x8: up"),
        (
            lambda: adversarial.pixadv_loss(LOGITS, DOMAIN[..., ::4, ::4], GROUND),
            r"per pixel of the labels \(2, 8, 8\); found \(2, 1, 2, 2\)\. Upsample",
        ),
        (
            lambda: adversarial.pixadv_loss(LOGITS, DOMAIN, GROUND, reduce="mean"),
            'reduce is "valid" or "all"; found \'mean\'',
        ),
        (lambda: adversarial.focal_loss(LOGITS, GROUND, gamma=-1.0), r"gamma is 0 .* or above; found -1\.0"),
        (
            lambda: adversarial.distillation_loss(LOGITS, LOGITS, teacher_temperature=0.0),
            r"teacher_temperature is above 0; found 0\.0",
        ),
        (
            lambda: adversarial.distillation_loss(LOGITS, LOGITS, class_reduce="max"),
            'class_reduce is "mean" or "sum"; found \'max\'',
        ),
        (
            lambda: contrast.prototype_contrastive_loss(PROTOTYPES, PROTOTYPES, temperature=0.0),
            r"temperature is above 0; found 0\.0",
        ),
        (lambda: memory.orthogonality_loss(PROTOTYPES, PROTOTYPES), "constant below 3 items, or 2 .*; found 2"),
        (
            lambda: memory.orthogonality_loss(PROTOTYPES, PROTOTYPES, diagonal=True),
            "constant below 3 items, or 2 with centred=False; found 2",
        ),
        (
            lambda: memory.orthogonality_loss(PROTOTYPES[:1], PROTOTYPES[:1], centred=False),
            "constant below 3 items, or 2 with centred=False; found 1",
        ),
    ],
)
def test_what_is_refused_says_what_there_is(call, said, monkeypatch):
    for module in (adversarial, contrast, memory):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            monkeypatch.setattr(module, name, inspect.unwrap(function))
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("value", [4, -1, 254])
@pytest.mark.parametrize("name", ["difficulty map", "balance map", "pixadv", "focal"])
def test_labels_outside_the_classes_are_refused(name, value):
    floats, (labels,) = BLOCKS[name].drawn()
    labels[1, 2, 3] = value
    with pytest.raises(ValueError, match=rf"Labels of 4 classes are 0 to 3, and 255 for void; found \[{value}\]"):
        BLOCKS[name].call(*floats, labels)


@pytest.mark.parametrize("function", [adversarial.pixel_difficulty_map, adversarial.focal_loss])
def test_logits_on_the_feature_grid_are_refused(function):
    with pytest.raises(TypeCheckError):
        function(LOGITS[..., ::4, ::4], GROUND)
