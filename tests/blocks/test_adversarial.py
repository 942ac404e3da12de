"""Adversarial alignment: sizes, what gets a gradient, the selection. 1 s.

The definitions of the losses in NumPy, void, precision and what they refuse are in test_blocks.py.
"""

import pytest
import torch

from fsslib.blocks.adversarial import (
    ImageDiscriminator,
    PixelDiscriminator,
    class_balance_map,
    distillation_loss,
    gradient_reversal,
    pixadv_loss,
    pixel_difficulty_map,
    select_sources,
)
from fsslib.episodes import VOID

RELEASE = {"count_ignored": True, "reduce": "all"}
# Three classes on 2x2 pixels, one of them void.
GOLDEN_LOGITS = torch.tensor([[[[2.0, 0], [0, 1]], [[0, 1], [0, 1]], [[-1, 0], [1, 1]]]], dtype=torch.float64)
GOLDEN_LABELS = torch.tensor([[[0, 0], [1, VOID]]])


def drawn(batch=2, classes=4, size=(5, 6), seed=0, void=0.2):
    """Random logits, discriminator logits and labels, some of them void and some classes perhaps absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)
    domain = 2 * torch.randn(batch, 1, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < void] = VOID
    return logits, domain, labels


# Discriminators


def test_sizes_of_what_the_discriminators_say():
    with torch.device("meta"):
        pixel, image = PixelDiscriminator(19), ImageDiscriminator(19)
        full = torch.empty(2, 19, 512, 1024)
        assert pixel(full).shape == (2, 1, 512, 1024)
        assert image(full).shape == (2, 1, 16, 32)
        assert image(torch.empty(1, 19, 32, 64)).shape == (1, 1, 1, 2)
        assert image(torch.empty(1, 19, 95, 33)).shape == (1, 1, 2, 1)
        assert pixel(torch.empty(1, 19, 1, 3)).shape == (1, 1, 1, 3)
        with pytest.raises(ValueError, match=r"needs 32 pixels; found 16x128\. .*size of the image"):
            image(torch.empty(1, 19, 16, 128))


def test_the_pixel_discriminator_sees_five_by_five_pixels():
    probabilities = torch.rand(1, 3, 11, 11, requires_grad=True)
    PixelDiscriminator(3, width=8)(probabilities)[0, 0, 5, 5].backward()
    seen = (probabilities.grad != 0).any(1)[0]
    assert seen[3:8, 3:8].all()
    assert seen.sum() == 25


# The maps


# The adversarial loss


@pytest.mark.parametrize(("detach", "norm", "first"), [(True, 0.071525, 0.0030), (False, 0.218290, -0.0192)])
def test_golden_gradient_with_and_without_detached_maps(detach, norm, first):
    """What the release does not detach triples the gradient and turns its sign at the first pixel."""
    logits = GOLDEN_LOGITS.clone().requires_grad_()
    judge = torch.tensor([1, -1, 0.5], dtype=torch.float64)[:, None, None]
    domain = (logits.softmax(1) * judge).sum(1, keepdim=True)
    loss = pixadv_loss(logits, domain, GOLDEN_LABELS, detach_maps=detach, **RELEASE)
    assert loss.item() == pytest.approx(0.381681, abs=1e-6)
    loss.backward()
    assert logits.grad.norm().item() == pytest.approx(norm, abs=1e-6)
    assert logits.grad[0, 0, 0, 0].item() == pytest.approx(first, abs=5e-5)
    assert (logits.grad[..., 1, 1] == 0).all()


def test_the_mean_of_an_attached_map_has_no_gradient():
    logits, domain, labels = drawn(void=0)
    gradients = []
    for normalise in (False, True):
        z = logits.clone().requires_grad_()
        pixadv_loss(z, domain, labels, detach_maps=False, normalise_map=normalise).backward()
        gradients.append(z.grad)
    mean = (pixel_difficulty_map(logits, labels) * class_balance_map(labels, 4)).mean()
    torch.testing.assert_close(gradients[1], gradients[0] / mean)


@pytest.mark.parametrize("normalise", [False, True])
def test_images_of_one_class_cost_nothing(normalise):
    logits, domain, labels = drawn()
    labels = labels.where(labels == VOID, torch.tensor([1, 3])[:, None, None])
    domain.requires_grad_()
    loss = pixadv_loss(logits, domain, labels, normalise_map=normalise)
    loss.backward()
    assert loss == 0
    assert (domain.grad == 0).all()
    assert pixadv_loss(logits, domain, labels, use_balance=False, normalise_map=normalise) > 0


# Focal loss and distillation


def test_the_student_is_drawn_to_half_the_teachers_logits_and_the_teacher_stays():
    teacher, _, _ = drawn()
    student = (teacher / 2).requires_grad_()
    teacher.requires_grad_()
    loss = distillation_loss(student, teacher, class_reduce="sum")
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, torch.zeros_like(student))
    chance = (teacher / 2).softmax(1)
    torch.testing.assert_close(loss, -(chance * chance.log()).sum(1).mean())
    assert distillation_loss(teacher, teacher, class_reduce="sum") > loss


# Gradient reversal


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_reversal_is_the_identity_turns_the_gradient_and_spares_the_classifier_behind_it(strength):
    features, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)

    def gradients(seen_through):
        x, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        (seen_through(x) @ w).square().sum().backward()
        return x.grad, w.grad

    plain, turned = gradients(lambda x: x), gradients(lambda x: gradient_reversal(x, strength))
    torch.testing.assert_close(turned[0], -strength * plain[0])
    assert torch.equal(turned[1], plain[1])
    assert torch.equal(gradient_reversal(features, strength), features)
    assert gradient_reversal(features.bfloat16(), strength).dtype == torch.bfloat16
    x = features.clone().requires_grad_()  # its input is left alone
    (gradient_reversal(x, strength) + x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 - strength))


# Selection


def test_images_above_the_threshold_stay():
    scores = torch.tensor([0.1, 0.4, 0.40001, 0.693, 3.0])
    assert select_sources(scores, 0.4).tolist() == [False, False, True, True, True]
    assert not select_sources(scores, 4.0).any()
    assert select_sources(torch.zeros(0), 0.4).shape == (0,)
    with pytest.raises(ValueError, match=r"2 of 5 scores are not finite: nothing was selected"):
        select_sources(torch.tensor([0.1, float("nan"), 0.2, float("inf"), 1.0]), 0.4)
