"""The two losses on prototypes: golden values and floors, who pushes whom, sizes. 1 s.

What all losses share, their definitions in NumPy among it, is in test_losses.py.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.contrast import prototype_contrastive_loss, prototype_segmentation_loss
from fsslib.blocks.similarity import prototype_logits
from fsslib.episodes import VOID

PRINTED = {"symmetric": False, "temperature": 1.0}


def drawn(batch, channels=5, seed=0, classes=None):
    generator = torch.Generator().manual_seed(seed)
    anchors, positives = torch.randn(2, batch, channels, generator=generator, dtype=torch.float64)
    ids = None if classes is None else torch.randint(classes, (batch,), generator=generator)
    return anchors, positives, ids


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


@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_to_push_from_costs_nothing(symmetric):
    for batch, classes in ((1, None), (5, 1)):
        anchors, positives, ids = drawn(batch, classes=classes)
        anchors.requires_grad_()
        loss = prototype_contrastive_loss(anchors, positives, ids, symmetric=symmetric)
        assert loss == 0
        loss.backward()
        assert (anchors.grad == 0).all()


def test_the_length_of_a_prototype_does_not_count():
    anchors, positives, ids = drawn(5, classes=3)
    expected = prototype_contrastive_loss(anchors, positives, ids)
    torch.testing.assert_close(prototype_contrastive_loss(0.01 * anchors, 100 * positives, ids), expected)
    torch.testing.assert_close(prototype_contrastive_loss(positives, anchors, ids), expected)


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


# Telling an object from its background


def test_logits_are_brought_to_the_size_of_the_labels():
    features, foreground, background = (torch.randn(*shape) for shape in ((2, 4, 4, 4), (2, 4), (2, 4)))
    labels = torch.tensor([0, 1, VOID])[torch.randint(3, (2, 16, 16))]
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
    chance = prototype_logits(features, foreground, background).softmax(1)
    assert -(labels * chance[:, 1].log()).mean() < 1e-8  # the printed loss
    assert prototype_segmentation_loss(features, foreground, background, labels).item() == pytest.approx(10)
    features[:, :, 2:] = features[:, :, 2:].flip(1)
    assert prototype_segmentation_loss(features, foreground, background, labels) < 1e-8
