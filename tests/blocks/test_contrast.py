"""The two losses on prototypes: golden values and floors, loops in NumPy, properties, gradients, precision. 3 s."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.contrast import prototype_contrastive_loss, prototype_segmentation_loss
from fsslib.episodes import VOID

PRINTED = {"symmetric": False, "temperature": 1.0}


def drawn(batch, channels=5, seed=0, classes=None):
    generator = torch.Generator().manual_seed(seed)
    anchors, positives = torch.randn(2, batch, channels, generator=generator, dtype=torch.float64)
    ids = None if classes is None else torch.randint(classes, (batch,), generator=generator)
    return anchors, positives, ids


def contrast_by_loops(anchors, positives, ids, temperature, symmetric):
    """The docstring's equation, pair by pair."""

    def similarity(one, other):
        return np.exp(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) / temperature)

    def terms(mine, theirs):
        for i in range(len(mine)):
            others = [j for j in range(len(mine)) if j != i and (ids is None or ids[j] != ids[i])]
            negative = sum(similarity(mine[i], mine[j]) + similarity(mine[i], theirs[j]) for j in others)
            positive = similarity(mine[i], theirs[i])
            yield -np.log(positive / (positive + negative))

    total = sum(terms(anchors, positives))
    if symmetric:
        total += sum(terms(positives, anchors))
    return total / (2 * len(anchors))


# Telling images apart


def test_golden_contrast_of_two_orthogonal_images():
    pair = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert prototype_contrastive_loss(*pair, **PRINTED).item() == pytest.approx(0.275722, abs=1e-6)
    assert prototype_contrastive_loss(*pair, temperature=1.0).item() == pytest.approx(0.551445, abs=1e-6)
    assert prototype_contrastive_loss(*pair).item() == pytest.approx(9.0796e-05, rel=1e-4)


@pytest.mark.parametrize(
    ("images", "same", "orthogonal", "simplex"),
    [
        (2, 1.098612, 0.551445, 0.239545),
        (4, 1.945910, 1.165422, 0.948403),
        (8, 2.708050, 1.816503, 1.698308),
        (16, 3.433987, 2.487934, 2.426979),
    ],
)
def test_floors_without_a_temperature(images, same, orthogonal, simplex):
    eye = torch.eye(images, dtype=torch.float64)
    arrangements = {same: torch.ones_like(eye), orthogonal: eye, simplex: eye - eye.mean(0)}
    for expected, prototypes in arrangements.items():
        found = prototype_contrastive_loss(prototypes, prototypes, temperature=1.0)
        printed = prototype_contrastive_loss(prototypes, prototypes, **PRINTED)
        assert found.item() == pytest.approx(expected, abs=1e-6)
        assert printed.item() == pytest.approx(expected / 2, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 6), st.sampled_from([None, 1, 2, 4]), st.sampled_from([0.1, 1.0]), st.booleans(), st.integers(0, 99)
)
def test_contrast_equals_the_loop_over_pairs(batch, classes, temperature, symmetric, seed):
    anchors, positives, ids = drawn(batch, seed=seed, classes=classes)
    options = {"temperature": temperature, "symmetric": symmetric}
    found = prototype_contrastive_loss(anchors, positives, ids, **options)
    expected = contrast_by_loops(anchors.numpy(), positives.numpy(), ids, **options)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.booleans(), st.integers(0, 99), st.floats(0.01, 100))
def test_neither_order_nor_length_changes_the_contrast(batch, symmetric, seed, length):
    anchors, positives, ids = drawn(batch, seed=seed, classes=3)
    found = prototype_contrastive_loss(anchors, positives, ids, symmetric=symmetric)
    assert found >= 0
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    moved = prototype_contrastive_loss(length * anchors[order], positives[order], ids[order], symmetric=symmetric)
    torch.testing.assert_close(moved, found)
    if symmetric:
        torch.testing.assert_close(prototype_contrastive_loss(positives, anchors, ids), found)


@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_to_push_from_costs_nothing(symmetric):
    for batch, classes in ((1, None), (5, 1)):
        anchors, positives, ids = drawn(batch, classes=classes)
        anchors.requires_grad_()
        loss = prototype_contrastive_loss(anchors, positives, ids, symmetric=symmetric)
        assert loss == 0
        loss.backward()
        assert (anchors.grad == 0).all()


def test_images_of_the_same_class_are_not_pushed_apart():
    anchors, positives, _ = drawn(3)
    anchors.requires_grad_()
    prototype_contrastive_loss(anchors, positives, torch.tensor([7, 7, 7]), temperature=1.0).backward()
    assert (anchors.grad == 0).all()
    pushed = prototype_contrastive_loss(anchors, positives, torch.tensor([7, 8, 7]))
    alone = prototype_contrastive_loss(anchors[:2], positives[:2], torch.tensor([7, 8]))
    assert pushed != alone
    assert prototype_contrastive_loss(anchors, positives, torch.tensor([4, 9, 2])) == prototype_contrastive_loss(
        anchors, positives
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_extreme_temperature_is_harmless(dtype):
    """Logits of 10,000: the right answer costs nothing, the opposite one their difference, with finite gradients."""
    anchors, positives = torch.eye(4).to(dtype).requires_grad_(), torch.eye(4).to(dtype)
    loss = prototype_contrastive_loss(anchors, positives, temperature=1e-4)
    assert loss.dtype == torch.float32
    assert loss == 0
    wrong = prototype_contrastive_loss(anchors, positives.roll(1, 0), temperature=1e-4)
    assert wrong.item() == pytest.approx(10_000)
    wrong.backward()
    assert torch.isfinite(anchors.grad).all()


def test_low_precision_rounds_the_prototypes_and_nothing_else():
    anchors, positives, ids = drawn(8, channels=64, classes=4)
    coarse = anchors.bfloat16(), positives.bfloat16()
    expected = prototype_contrastive_loss(*(c.float() for c in coarse), ids)
    assert torch.equal(prototype_contrastive_loss(*coarse, ids), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prototype_contrastive_loss(*(c.float() for c in coarse), ids), expected)


def test_a_zero_prototype_is_unlike_everything_and_pushes_nobody():
    anchors, positives, _ = drawn(3)
    anchors[1], positives[1] = 0, 0
    anchors.requires_grad_()
    loss = prototype_contrastive_loss(anchors, positives, temperature=1.0)
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(anchors.grad).all()
    # All its cosines are 0: its terms are constants.
    lone = F.cosine_similarity(anchors[[0, 2], None], positives[None, [0, 2]], dim=2).diagonal()
    assert loss > -lone.mean() / 3
    assert prototype_contrastive_loss(0 * anchors, 0 * positives, temperature=1.0).item() == pytest.approx(np.log(5))


def test_gradients_of_the_contrast():
    anchors, positives, _ = drawn(4)
    inputs = anchors.requires_grad_(), positives.requires_grad_()
    for ids in (None, torch.tensor([0, 1, 0, 2])):
        for options in (PRINTED, {"temperature": 0.5}):
            loss = functools.partial(prototype_contrastive_loss, class_ids=ids, **options)
            assert torch.autograd.gradcheck(loss, inputs)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"temperature is above 0; found 0\.0"):
        prototype_contrastive_loss(*drawn(2), temperature=0.0)


# Telling an object from its background


def scene(batch=2, channels=4, grid=(3, 4), size=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, *grid, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(2, batch, channels, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, VOID])[torch.randint(3, (batch, *size), generator=generator)]
    return features, prototypes[0], prototypes[1], labels


def probabilities_in_numpy(features, foreground, background, scale):
    """R of each place for {background, foreground}."""
    batch, _, height, width = features.shape
    result = np.zeros((batch, 2, height, width))
    for b, y, x in np.ndindex(batch, height, width):
        place = features[b, :, y, x]
        for k, prototype in enumerate((background[b], foreground[b])):
            result[b, k, y, x] = place @ prototype / (np.linalg.norm(place) * np.linalg.norm(prototype))
    result = np.exp(scale * result)
    return result / result.sum(1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1.0, 20.0]), st.integers(0, 99))
def test_segmentation_equals_the_mean_over_pixels(scale, seed):
    features, foreground, background, labels = scene(seed=seed)
    labels[0, 0, 0] = 1
    chance = probabilities_in_numpy(features.numpy(), foreground.numpy(), background.numpy(), scale)
    costs = [-np.log(chance[b, k, y, x]) for (b, y, x), k in np.ndenumerate(labels.numpy()) if k != VOID]
    found = prototype_segmentation_loss(features, foreground, background, labels, scale=scale)
    assert found.item() == pytest.approx(np.mean(costs), rel=1e-9)


def test_logits_are_brought_to_the_size_of_the_labels():
    features, foreground, background, labels = scene(grid=(4, 4), size=(16, 16))
    pairs = [F.cosine_similarity(features, p[:, :, None, None], dim=1) for p in (background, foreground)]
    large = F.interpolate(20 * torch.stack(pairs, 1), (16, 16), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(large, labels, ignore_index=VOID)
    torch.testing.assert_close(prototype_segmentation_loss(features, foreground, background, labels), expected)


def test_all_foreground_is_perfect_as_printed_and_expensive_here():
    features = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    features[:, 0] = 1  # every place is like the foreground prototype
    foreground, background = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, :2] = 1
    chance = probabilities_in_numpy(features.numpy(), foreground.numpy(), background.numpy(), 20.0)
    printed = -(labels.numpy() * np.log(chance[:, 1])).mean()
    assert printed < 1e-8
    assert prototype_segmentation_loss(features, foreground, background, labels).item() == pytest.approx(10)
    features[:, :, 2:] = features[:, :, 2:].flip(1)
    assert prototype_segmentation_loss(features, foreground, background, labels) < 1e-8


def test_void_counts_nowhere_and_labels_that_are_void_throughout_cost_nothing():
    features, foreground, background, labels = scene()
    features.requires_grad_()
    whole = prototype_segmentation_loss(features, foreground, background, labels)
    changed = torch.where((labels == VOID)[:, None], torch.full_like(features, 9.0), features)
    torch.testing.assert_close(prototype_segmentation_loss(changed, foreground, background, labels), whole)
    nothing = prototype_segmentation_loss(features, foreground, background, torch.full_like(labels, VOID))
    assert nothing == 0
    nothing.backward()
    assert (features.grad == 0).all()


def test_the_order_of_the_batch_does_not_change_the_segmentation_loss():
    given_scene = scene(batch=4)
    order = torch.tensor([2, 0, 3, 1])
    moved = prototype_segmentation_loss(*(part[order] for part in given_scene))
    torch.testing.assert_close(moved, prototype_segmentation_loss(*given_scene))


def test_an_empty_mask_gives_a_finite_loss():
    features, foreground, background, labels = scene()
    features.requires_grad_()
    loss = prototype_segmentation_loss(features, 0 * foreground, background, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def test_large_scales_and_low_precision():
    features, foreground, background, labels = scene(channels=64, grid=(8, 8), size=(32, 32))
    features.requires_grad_()
    loss = prototype_segmentation_loss(features, foreground, background, labels, scale=1e5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()
    coarse = [part.detach().bfloat16() for part in (features, foreground, background)]
    expected = prototype_segmentation_loss(*(c.float() for c in coarse), labels)
    assert torch.equal(prototype_segmentation_loss(*coarse, labels), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(prototype_segmentation_loss(*(c.float() for c in coarse), labels), expected)


def test_gradients_of_the_segmentation_loss():
    features, foreground, background, labels = scene(size=(6, 7))
    inputs = features.requires_grad_(), foreground.requires_grad_(), background.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, p, q: prototype_segmentation_loss(f, p, q, labels, scale=2.0), inputs)
