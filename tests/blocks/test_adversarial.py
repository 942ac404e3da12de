"""Adversarial alignment: golden values, what gets a gradient, what the release does, the selection. 5 s.

What all losses share, their definitions in NumPy among it, is in test_losses.py.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.adversarial import (
    ImageDiscriminator,
    PixelDiscriminator,
    class_balance_map,
    distillation_loss,
    domain_loss,
    focal_loss,
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
GOLDEN_DOMAIN = torch.tensor([[[[0.0, 1], [-1, 2]]]], dtype=torch.float64)


def drawn(batch=2, classes=4, size=(5, 6), seed=0, void=0.2):
    """Random logits, discriminator logits and labels, some of them void and some classes perhaps absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)
    domain = 2 * torch.randn(batch, 1, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < void] = VOID
    return logits, domain, labels


# Discriminators


def test_parameters_of_the_discriminators_for_19_classes():
    pixel, image = PixelDiscriminator(19), ImageDiscriminator(19)
    assert sum(p.numel() for p in pixel.parameters()) == 84_993
    assert sum(p.numel() for p in image.parameters()) == 2_781_121


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


@pytest.mark.parametrize("discriminator", [PixelDiscriminator, ImageDiscriminator])
def test_discriminators_are_convolutions_and_leaky_slopes_and_nothing_else(discriminator):
    layers = list(discriminator(3, width=4))
    assert {type(layer) for layer in layers} == {torch.nn.Conv2d, torch.nn.LeakyReLU}
    assert [type(layer) for layer in layers[1::2]] == [torch.nn.LeakyReLU] * (len(layers) // 2)
    assert {layer.negative_slope for layer in layers[1::2]} == {0.2}


def test_indifference_costs_the_log_of_two_and_a_sure_error_its_logit():
    assert domain_loss(torch.zeros(1, 1, 2, 2), "source").item() == pytest.approx(0.693147, abs=1e-6)
    assert domain_loss(torch.full((1, 1, 2, 2), 200.0), "source") == 200


# The maps


def test_golden_maps():
    fooling = F.softplus(GOLDEN_DOMAIN)[0, 0]
    expected = torch.tensor([[0.693147, 1.313262], [0.313262, 2.126928]], dtype=torch.float64)
    torch.testing.assert_close(fooling, expected, rtol=0, atol=1e-6)
    expected = torch.tensor([[[0.169846, 1.551445], [1.551445, 0]]], dtype=torch.float64)
    torch.testing.assert_close(pixel_difficulty_map(GOLDEN_LOGITS, GOLDEN_LABELS), expected, rtol=0, atol=1e-6)
    balance = class_balance_map(GOLDEN_LABELS, 3)
    torch.testing.assert_close(balance, torch.tensor([[[1 / 3, 1 / 3], [2 / 3, 0]]]))
    counting_void = class_balance_map(GOLDEN_LABELS, 3, count_ignored=True)
    torch.testing.assert_close(counting_void, torch.tensor([[[0.5, 0.5], [0.75, 0]]]))


def test_balance_is_zero_for_one_class_and_near_one_for_a_rare_one():
    labels = torch.full((1, 20, 20), 2)
    assert (class_balance_map(labels, 4) == 0).all()
    labels[0, :10] = VOID
    assert (class_balance_map(labels, 4) == 0).all()
    labels[0, 19, 19] = 0
    balance = class_balance_map(labels, 4)
    assert balance[0, 19, 19].item() == pytest.approx(1 - 1 / 200)
    assert balance[0, 15, 3].item() == pytest.approx(1 / 200)


# The adversarial loss


def test_golden_pixadv():
    golden = (GOLDEN_LOGITS, GOLDEN_DOMAIN, GOLDEN_LABELS)
    assert pixadv_loss(*golden).item() == pytest.approx(0.347466, abs=1e-6)
    assert pixadv_loss(*golden, reduce="all").item() == pytest.approx(0.260600, abs=1e-6)
    assert pixadv_loss(*golden, **RELEASE).item() == pytest.approx(0.360524, abs=1e-6)


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


@pytest.mark.parametrize("maps", [{}, {"use_difficulty": False}, {"use_balance": False}])
def test_the_normalised_map_changes_where_it_pushes_and_not_how_hard(maps):
    """Where the discriminator is equally sure everywhere, all variants cost the same, almost perfect answers too."""
    logits, domain, labels = drawn()
    sure = 20 * F.one_hot(labels.where(labels != VOID, 0), 4).permute(0, 3, 1, 2).double()
    plain = pixadv_loss(logits, 0 * domain, labels, use_difficulty=False, use_balance=False)
    assert plain.item() == pytest.approx(np.log(2))
    assert pixadv_loss(logits, 0 * domain, labels, **maps) != pytest.approx(plain.item())
    for answers in (logits, sure):
        normalised = pixadv_loss(answers, 0 * domain, labels, normalise_map=True, **maps)
        assert normalised.item() == pytest.approx(plain.item())


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


def test_the_segmenter_learns_and_a_frozen_discriminator_does_not():
    logits, _, labels = drawn(classes=3, size=(8, 8))
    logits.requires_grad_()
    judge = PixelDiscriminator(3, width=4).double().requires_grad_(False)
    pixadv_loss(logits, judge(logits.softmax(1)), labels).backward()
    assert all(p.grad is None for p in judge.parameters())
    assert logits.grad.abs().sum() > 0
    # Detached maps: without the way through the discriminator there is nothing to learn from.
    blind = pixadv_loss(logits, judge(logits.detach().softmax(1)), labels)
    assert not blind.requires_grad
    assert pixadv_loss(logits, judge(logits.detach().softmax(1)), labels, detach_maps=False).requires_grad
    # The other phase: the discriminators learn from given predictions.
    judge.requires_grad_(True)
    logits.grad = None
    domain_loss(judge(logits.detach().softmax(1)), "target").backward()
    assert logits.grad is None
    assert all(p.grad.abs().sum() > 0 for p in judge.parameters())


def test_a_step_along_the_gradient_makes_rare_and_wrong_pixels_look_like_the_source():
    """A discriminator that takes class 1 for the target: pixels move from class 1 to 0, by as much as S B says."""
    logits = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    logits[0, 1, 0, 1] = 3
    logits.requires_grad_()
    labels = torch.tensor([[[0, 0, 0, 1]]])
    pixadv_loss(logits, logits[:, 1:] - logits[:, :1], labels).backward()
    push = logits.grad[0, 1, 0]
    assert (push > 0).all()
    assert push[1] > push[0]  # wrong against undecided
    assert push[3].item() == pytest.approx(3 * push[0].item())  # one pixel of the class against three


def test_a_training_step_in_bfloat16_is_finite():
    logits, _, labels = drawn(batch=1, classes=5, size=(32, 32))
    logits = (20 * logits).float().requires_grad_()
    judges = PixelDiscriminator(5, width=4), ImageDiscriminator(5, width=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pixel, image = (judge(logits.softmax(1)) for judge in judges)
        assert pixel.dtype == image.dtype == torch.bfloat16
        total = pixadv_loss(logits, pixel, labels) + focal_loss(logits, labels) + domain_loss(image, "source")
    total.backward()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()
    assert all(torch.isfinite(p.grad).all() for judge in judges for p in judge.parameters())


# Focal loss and distillation


def test_focal_without_focus_is_cross_entropy_and_two_is_the_default():
    logits, _, labels = drawn()
    expected = F.cross_entropy(logits, labels, ignore_index=VOID)
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0), expected)
    assert focal_loss(logits, labels) == focal_loss(logits, labels, gamma=2.0)
    assert focal_loss(logits, labels) < expected


def test_focal_as_released_never_passes_the_log_of_a_million():
    """0.25 for class 2 and 0.75 for all others, and 1e-6 added to the chance: as the release does on a GPU."""
    wrong = torch.zeros(1, 4, 1, 1)
    wrong[:, 1] = 200
    found = [focal_loss(wrong, torch.full((1, 1, 1), c), as_released=True).item() for c in (0, 2)]
    assert found == pytest.approx([0.75 * np.log(1e6), 0.25 * np.log(1e6)], rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_answers_that_are_all_right_or_all_wrong(gamma):
    right = torch.zeros(1, 2, 1, 2)
    right[0, 0] = 200
    right.requires_grad_()
    loss = focal_loss(right, torch.zeros(1, 1, 2, dtype=torch.int64), gamma=gamma)
    loss.backward()
    assert loss == 0
    assert (right.grad == 0).all()
    wrong = right.detach().clone().requires_grad_()
    loss = focal_loss(wrong, torch.ones(1, 1, 2, dtype=torch.int64), gamma=gamma)
    loss.backward()
    assert loss == 200
    torch.testing.assert_close(wrong.grad, torch.tensor([0.5, -0.5])[None, :, None, None].expand(1, 2, 1, 2))


def test_golden_distillation():
    teacher = torch.tensor([2.0, 0, -1])[None, :, None, None]
    student = torch.tensor([1.0, 1, 0])[None, :, None, None]
    assert distillation_loss(student, teacher).item() == pytest.approx(0.334080, abs=1e-6)
    assert distillation_loss(student, teacher, class_reduce="sum").item() == pytest.approx(1.002239, abs=1e-6)


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


def test_kept_images_have_a_probability_of_source_below_exp_of_minus_the_threshold():
    logits = torch.linspace(-3, 3, 60)[:, None, None, None]
    scores = torch.stack([domain_loss(image[None], "source") for image in logits])
    before = torch.ones(60, dtype=torch.bool)
    for k, bound in enumerate((0.670, 0.449, 0.301, 0.202, 0.135, 0.091), start=1):
        kept = select_sources(scores, 0.4 * k)
        assert (kept <= before).all(), "a growing threshold keeps ever fewer of the same"
        before, chance_of_source = kept, torch.sigmoid(-logits.flatten())
        assert torch.equal(kept, chance_of_source < np.exp(-0.4 * k))
        assert np.exp(-0.4 * k) == pytest.approx(bound, abs=5e-4)


def test_the_order_of_scores_flips_when_the_domain_labels_flip():
    """Images from crisp to blurred answers: whoever learns that crisp is "source" keeps the blurred ones."""

    def images(sharpness, seed):
        generator = torch.Generator().manual_seed(seed)
        return (sharpness * torch.randn(8, 3, 32, 32, generator=generator)).softmax(1)

    def scores(crisp, blurred):
        torch.manual_seed(1)
        judge = ImageDiscriminator(3, width=4)
        if crisp == "target":  # the mirrored start, so that both trainings take the same way
            judge[-1].weight.data.neg_(), judge[-1].bias.data.neg_()
        optimiser = torch.optim.Adam(judge.parameters(), lr=1e-2)
        for step in range(40):
            optimiser.zero_grad()
            told = domain_loss(judge(images(4.0, 2 * step)), crisp), domain_loss(judge(images(0.5, 2 * step)), blurred)
            sum(told).backward()
            optimiser.step()
        with torch.no_grad():
            between = [judge(images(sharpness, 1)) for sharpness in (4.0, 2.0, 1.0, 0.5)]
            return torch.stack([domain_loss(logits, "source") for logits in between])

    told, flipped = scores("source", "target"), scores("target", "source")
    assert told.argsort().tolist() == [0, 1, 2, 3]
    assert flipped.argsort().tolist() == [3, 2, 1, 0]
    assert select_sources(told, 0.693)[[0, -1]].tolist() == [False, True]
    assert select_sources(flipped, 0.693)[[0, -1]].tolist() == [True, False]
