"""Adversarial alignment: golden values, loops and transforms in NumPy, what gets a gradient, the release. 10 s."""

import functools
import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fsslib.blocks.adversarial import (
    ImageDiscriminator,
    PixelDiscriminator,
    class_balance_map,
    distillation_loss,
    domain_loss,
    focal_loss,
    fourier_stylise,
    gradient_reversal,
    gradient_reversal_strength,
    pixadv_loss,
    pixel_difficulty_map,
    select_sources,
)
from fsslib.episodes import VOID

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
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


def drawn_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def probabilities(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def pixels_of(labels):
    """The places that are not void, with their class."""
    return [(place, c) for place, c in np.ndenumerate(labels.numpy()) if c != VOID]


def maps_by_loops(logits, domain, labels, count_ignored=False):
    """A, S and B of the docstrings, pixel by pixel; 0 where void."""
    chance, labels = probabilities(logits.numpy()), labels.numpy()
    fooling, difficulty, balance = np.zeros((3, *labels.shape))
    for (b, y, x), c in np.ndenumerate(labels):
        if c == VOID:
            continue
        fooling[b, y, x] = -np.log(1 - 1 / (1 + np.exp(-domain[b, 0, y, x].item())))
        difficulty[b, y, x] = -np.log(chance[b, c, y, x])
        total = labels[b].size if count_ignored else (labels[b] != VOID).sum()
        balance[b, y, x] = 1 - (labels[b] == c).sum() / total
    return fooling, difficulty, balance


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


def test_domain_loss_is_binary_cross_entropy_with_source_0_and_target_1():
    _, domain, _ = drawn(size=(3, 7))
    chance_of_target = 1 / (1 + np.exp(-domain.numpy()))
    assert domain_loss(domain, "source").item() == pytest.approx(-np.log(1 - chance_of_target).mean())
    assert domain_loss(domain, "target").item() == pytest.approx(-np.log(chance_of_target).mean())
    assert domain_loss(torch.zeros(1, 1, 2, 2), "source").item() == pytest.approx(0.693147, abs=1e-6)
    assert domain_loss(torch.full((1, 1, 2, 2), 200.0), "source") == 200
    with pytest.raises(ValueError, match='domain is "source" or "target"; found \'Target\''):
        inspect.unwrap(domain_loss)(domain, "Target")


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


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.5, 0.95]), st.integers(0, 99))
def test_maps_equal_the_loop_over_pixels(batch, classes, count_ignored, void, seed):
    logits, domain, labels = drawn(batch, classes, seed=seed, void=void)
    _, difficulty, balance = maps_by_loops(logits, domain, labels, count_ignored)
    np.testing.assert_allclose(pixel_difficulty_map(logits, labels), difficulty, rtol=1e-9, atol=1e-12)
    found = class_balance_map(labels, classes, count_ignored=count_ignored)
    np.testing.assert_allclose(found, balance, atol=1e-6)


def test_balance_is_counted_in_each_image_and_absent_classes_change_nothing():
    _, _, labels = drawn(batch=4)
    alone = torch.cat([class_balance_map(image[None], 4) for image in labels])
    assert torch.equal(class_balance_map(labels, 4), alone)
    assert torch.equal(class_balance_map(labels, 19), alone)


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


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 0.95]),
    st.fixed_dictionaries(
        {
            "use_difficulty": st.booleans(),
            "use_balance": st.booleans(),
            "count_ignored": st.booleans(),
            "normalise_map": st.booleans(),
            "reduce": st.sampled_from(["valid", "all"]),
            "detach_maps": st.booleans(),
        }
    ),
    st.integers(0, 99),
)
def test_pixadv_equals_the_sum_over_pixels(batch, void, options, seed):
    logits, domain, labels = drawn(batch, seed=seed, void=void)
    fooling, difficulty, balance = maps_by_loops(logits, domain, labels, options["count_ignored"])
    weights = (labels != VOID).numpy().astype(float)
    valid = max(weights.sum(), 1)
    if options["use_difficulty"]:
        weights = weights * difficulty
    if options["use_balance"]:
        weights = weights * balance
    if options["normalise_map"] and weights.any():
        weights = weights / (weights.sum() / valid)
    expected = (fooling * weights).sum() / (valid if options["reduce"] == "valid" else labels.numel())
    assert pixadv_loss(logits, domain, labels, **options).item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_the_normalised_map_changes_where_it_pushes_and_not_how_hard():
    """Where the discriminator is equally sure everywhere, all variants of the map cost the same."""
    logits, domain, labels = drawn()
    plain = pixadv_loss(logits, 0 * domain, labels, use_difficulty=False, use_balance=False)
    assert plain.item() == pytest.approx(np.log(2))
    for maps in ({}, {"use_difficulty": False}, {"use_balance": False}):
        assert pixadv_loss(logits, 0 * domain, labels, **maps) != pytest.approx(plain.item())
        normalised = pixadv_loss(logits, 0 * domain, labels, normalise_map=True, **maps)
        assert normalised.item() == pytest.approx(plain.item())
        # Nor do almost perfect answers weaken it.
        sure = 20 * F.one_hot(labels.where(labels != VOID, 0), 4).permute(0, 3, 1, 2).double()
        normalised = pixadv_loss(sure, 0 * domain, labels, normalise_map=True, **maps)
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


def test_void_pixels_have_no_influence():
    logits, domain, labels = drawn(void=0.4)
    void = (labels == VOID)[:, None]
    elsewhere = torch.where(void, 7.0, logits), torch.where(void, -3.0, domain), labels
    for options in ({}, RELEASE, {"use_difficulty": False, "use_balance": False}, {"normalise_map": True}):
        torch.testing.assert_close(pixadv_loss(*elsewhere, **options), pixadv_loss(logits, domain, labels, **options))


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
def test_all_void_costs_nothing_with_a_gradient_of_zeros(detach, normalise):
    logits, domain, labels = drawn()
    nothing = torch.full_like(labels, VOID)
    logits.requires_grad_(), domain.requires_grad_()
    losses = [
        pixadv_loss(logits, domain, nothing, detach_maps=detach, normalise_map=normalise),
        pixadv_loss(logits, domain, nothing, detach_maps=detach, normalise_map=normalise, **RELEASE),
        focal_loss(logits, nothing),
        focal_loss(logits, nothing, gamma=0.5),
        focal_loss(logits, nothing, as_released=True),
    ]
    sum(losses).backward()
    assert losses == [0, 0, 0, 0, 0]
    assert (logits.grad == 0).all()
    assert (domain.grad == 0).all()
    assert (class_balance_map(nothing, 4) == 0).all()


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


@pytest.mark.parametrize("size", [(5, 6), (1, 6), (6, 1)])
def test_images_of_a_batch_are_weighed_one_by_one(size):
    logits, domain, labels = drawn(batch=3, size=size, void=0)
    alone = [pixadv_loss(logits[i : i + 1], domain[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(pixadv_loss(logits, domain, labels), torch.stack(alone).mean())


def test_gradients_of_the_attached_loss():
    logits, domain, labels = drawn(classes=3, size=(2, 3))
    inputs = logits.requires_grad_(), domain.requires_grad_()
    for maps in ({}, RELEASE, {"use_balance": False}):
        loss = functools.partial(pixadv_loss, labels=labels, detach_maps=False, **maps)
        assert torch.autograd.gradcheck(loss, inputs)


# Focal loss


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.sampled_from([0.0, 0.5]), st.integers(0, 99))
def test_focal_equals_the_mean_over_pixels(gamma, void, seed):
    logits, _, labels = drawn(seed=seed, void=void)
    chance = probabilities(logits.numpy())
    places = [chance[b, c, y, x] for (b, y, x), c in pixels_of(labels)]
    expected = np.mean([(1 - p) ** gamma * -np.log(p) for p in places])
    assert focal_loss(logits, labels, gamma=gamma).item() == pytest.approx(expected, rel=1e-9)


def test_focal_without_focus_is_cross_entropy_and_two_is_the_default():
    logits, _, labels = drawn()
    expected = F.cross_entropy(logits, labels, ignore_index=VOID)
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0), expected)
    assert focal_loss(logits, labels) == focal_loss(logits, labels, gamma=2.0)
    assert focal_loss(logits, labels) < expected
    with pytest.raises(ValueError, match=r"gamma is 0 .* or above; found -1\.0"):
        focal_loss(logits, labels, gamma=-1.0)


@pytest.mark.parametrize("void", [0.0, 0.5])
def test_focal_as_released_weighs_a_quarter_to_three_and_never_passes_the_log_of_a_million(void):
    """0.25 for class 2 and 0.75 for all others, and 1e-6 added to the chance: as the release does on a GPU."""
    logits, _, labels = drawn(void=void)
    logits = 20 * logits  # sure enough for 1e-6 to matter
    chance = probabilities(logits.numpy())
    places = [(c, chance[b, c, y, x] + 1e-6) for (b, y, x), c in pixels_of(labels)]
    expected = np.mean([(0.25 if c == 2 else 0.75) * (1 - p) ** 2 * -np.log(p) for c, p in places])
    assert focal_loss(logits, labels, as_released=True).item() == pytest.approx(expected, rel=1e-9)
    assert focal_loss(logits, labels) > 1.5 * focal_loss(logits, labels, as_released=True)
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


def test_gradients_of_the_focal_loss():
    logits, _, labels = drawn(classes=3, size=(2, 3))
    for gamma in (0.5, 2.0):
        assert torch.autograd.gradcheck(lambda z, g=gamma: focal_loss(z, labels, gamma=g), logits.requires_grad_())


# Distillation


def test_golden_distillation():
    teacher = torch.tensor([2.0, 0, -1])[None, :, None, None]
    student = torch.tensor([1.0, 1, 0])[None, :, None, None]
    assert distillation_loss(student, teacher).item() == pytest.approx(0.334080, abs=1e-6)
    assert distillation_loss(student, teacher, class_reduce="sum").item() == pytest.approx(1.002239, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 99))
def test_distillation_equals_the_sum_over_pixels_and_classes(batch, temperature, seed):
    student, _, _ = drawn(batch, seed=seed)
    teacher, _, _ = drawn(batch, seed=seed + 1000)
    target = probabilities(teacher.numpy() / temperature)
    terms = -target * np.log(probabilities(student.numpy()))
    found = {
        name: distillation_loss(student, teacher, teacher_temperature=temperature, class_reduce=name).item()
        for name in ("mean", "sum")
    }
    assert found["mean"] == pytest.approx(terms.mean())
    assert found["sum"] == pytest.approx(terms.sum(1).mean())


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


def test_distillation_refuses_what_it_does_not_know():
    logits, _, _ = drawn()
    with pytest.raises(ValueError, match=r"teacher_temperature is above 0; found 0\.0"):
        distillation_loss(logits, logits, teacher_temperature=0.0)
    with pytest.raises(ValueError, match='class_reduce is "mean" or "sum"; found \'max\''):
        inspect.unwrap(distillation_loss)(logits, logits, class_reduce="max")


# Gradient reversal


def test_reversal_is_the_identity_and_turns_the_gradient():
    x = torch.randn(3, 4, requires_grad=True)
    y = gradient_reversal(x, 0.3)
    assert torch.equal(y, x)
    upstream = torch.randn(3, 4)
    y.backward(upstream)
    torch.testing.assert_close(x.grad, -0.3 * upstream)


def test_reversal_spares_the_classifier_behind_it():
    features = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.randn(3, dtype=torch.float64)

    def gradients(strength):
        x, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        seen = x if strength is None else gradient_reversal(x, strength)
        (seen @ w).square().sum().backward()
        return x.grad, w.grad

    plain, turned, off = gradients(None), gradients(0.7), gradients(0.0)
    torch.testing.assert_close(turned[0], -0.7 * plain[0])
    assert (off[0] == 0).all()
    assert torch.equal(turned[1], plain[1])
    assert torch.equal(off[1], plain[1])


def test_reversal_leaves_its_input_alone():
    x = torch.ones(2, requires_grad=True)
    (gradient_reversal(x, 1.0) + x).sum().backward()
    assert (x.grad == 0).all()
    assert gradient_reversal(torch.ones(2, dtype=torch.bfloat16), 1.0).dtype == torch.bfloat16


def test_the_strength_grows_from_0_to_1():
    found = [gradient_reversal_strength(p) for p in (0, 0.05, 0.1, 0.25, 0.5, 1)]
    assert found == pytest.approx([0, 0.244919, 0.462117, 0.848284, 0.986614, 0.999909], abs=1e-6)
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"share of the steps done, 0 to 1; found"):
            gradient_reversal_strength(progress)


# Stylisation


def stylised_by_numpy(source, target, half_width):
    """FDA on the whole, centred spectrum, for images of the same size."""
    there = np.fft.fftshift(np.fft.fft2(source), axes=(-2, -1))
    style = np.fft.fftshift(np.fft.fft2(target), axes=(-2, -1))
    amplitude, phase = np.abs(there), np.angle(there)
    row, column = source.shape[-2] // 2, source.shape[-1] // 2
    window = (
        ...,
        slice(row - half_width, row + half_width + 1),
        slice(column - half_width, column + half_width + 1),
    )
    amplitude[window] = np.abs(style)[window]
    mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(-2, -1)))
    assert np.abs(mixed.imag).max() < 1e-12
    return mixed.real


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(9, 20), st.integers(9, 20), st.integers(0, 4), st.integers(0, 99))
def test_stylisation_equals_the_whole_spectrum_in_numpy(batch, height, width, half_width, seed):
    source, target = (drawn_images(batch, 3, height, width, seed=seed + i) for i in (0, 100))
    found = fourier_stylise(source, target, half_width)
    np.testing.assert_allclose(found, stylised_by_numpy(source.numpy(), target.numpy(), half_width), atol=1e-12)


@pytest.mark.parametrize("size", [(12, 16), (9, 31), (64, 5)])
def test_a_window_of_one_bin_swaps_the_means_and_nothing_else(size):
    source, target = drawn_images(2, 3, 12, 16), drawn_images(2, 3, *size, seed=1) ** 3
    expected = source - source.mean((2, 3), True) + target.mean((2, 3), True)
    torch.testing.assert_close(fourier_stylise(source, target, 0), expected, rtol=0, atol=1e-13)


def test_bins_count_waves_per_image_whatever_its_size():
    """A scene of a few waves, sampled at three sizes: the same style."""

    def waves(height, width):
        y = torch.arange(height, dtype=torch.float64)[:, None] / height
        x = torch.arange(width, dtype=torch.float64) / width
        image = 0.5 + 0.2 * torch.cos(2 * np.pi * (x + 2 * y)) + 0.1 * torch.sin(2 * np.pi * 2 * x)
        return image.expand(1, 3, height, width)

    source = drawn_images(1, 3, 20, 14)
    same = fourier_stylise(source, waves(20, 14), 2)
    for size in ((9, 40), (64, 48)):
        torch.testing.assert_close(fourier_stylise(source, waves(*size), 2), same)


def test_the_amplitude_inside_the_window_is_the_targets_and_all_else_the_sources():
    source, target = drawn_images(1, 3, 15, 15), drawn_images(1, 3, 30, 45, seed=1)
    before, after = torch.fft.fft2(source), torch.fft.fft2(fourier_stylise(source, target, 3))
    style = torch.fft.fft2(target) * (15 * 15) / (30 * 45)
    inside = torch.zeros(15, 15, dtype=torch.bool)
    for row in range(-3, 4):
        for column in range(-3, 4):
            inside[row, column] = True
            torch.testing.assert_close(after[..., row, column].abs(), style[..., row, column].abs())
    torch.testing.assert_close(after[..., ~inside], before[..., ~inside])
    phase = torch.exp(1j * (after.angle() - before.angle()))
    torch.testing.assert_close(phase, torch.ones_like(phase))


def test_its_own_style_changes_nothing_and_images_do_not_mix():
    source, target = drawn_images(3, 3, 16, 16), drawn_images(3, 3, 16, 16, seed=1)
    torch.testing.assert_close(fourier_stylise(source, source, 3), source)
    alone = torch.cat([fourier_stylise(source[i : i + 1], target[i : i + 1], 2) for i in range(3)])
    torch.testing.assert_close(fourier_stylise(source, target, 2), alone)


def test_stylised_images_are_not_clipped_and_inputs_not_changed():
    source, target = drawn_images(1, 3, 16, 16), drawn_images(1, 3, 16, 16, seed=1)
    copies = source.clone(), target.clone()
    result = fourier_stylise(source, 0.2 * target, 1)
    assert result.min() < 0
    assert torch.equal(source, copies[0])
    assert torch.equal(target, copies[1])


def test_black_and_uniform_images_are_stylised_without_nan():
    black, target = torch.zeros(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    for source in (black, black + 0.5):
        for half_width in (0, 3):
            result = fourier_stylise(source, target, half_width)
            assert torch.isfinite(result).all()
            torch.testing.assert_close(result.mean((2, 3)), target.mean((2, 3)))
    torch.testing.assert_close(fourier_stylise(target, black, 0).mean((2, 3)), torch.zeros(1, 3), atol=1e-6, rtol=0)


def test_stylisation_refuses_windows_and_batches_that_do_not_fit():
    source, target = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 30)
    assert fourier_stylise(source, target, 3).shape == source.shape
    with pytest.raises(ValueError, match=r"9 bins does not fit into images of 8 pixels: .* at most 3 here; found 4"):
        fourier_stylise(source, target, 4)
    with pytest.raises(ValueError, match=r"counts Fourier bins, 0 or more; found -1"):
        fourier_stylise(source, target, -1)
    unchecked = inspect.unwrap(fourier_stylise)
    with pytest.raises(ValueError, match=r"found 0\.01\. A share L .* int\(L \* min\(H, W\)\)"):
        unchecked(source, target, 0.01)
    with pytest.raises(ValueError, match=r"needs one target image; found \(2, 3, 16, 16\) and \(1, 3, 8, 30\)"):
        unchecked(source, target[:1], 2)


# Selection


def test_images_above_the_threshold_stay():
    scores = torch.tensor([0.1, 0.4, 0.40001, 0.693, 3.0])
    assert select_sources(scores, 0.4).tolist() == [False, False, True, True, True]
    assert not select_sources(scores, 4.0).any()
    assert select_sources(torch.zeros(0), 0.4).shape == (0,)
    with pytest.raises(ValueError, match=r"2 of 5 scores are not finite: nothing was selected"):
        select_sources(torch.tensor([0.1, float("nan"), 0.2, float("inf"), 1.0]), 0.4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.floats(0.1, 1))
def test_a_growing_threshold_keeps_ever_fewer_of_the_same(scores, step):
    kept = [select_sources(torch.tensor(scores), k * step) for k in range(1, 6)]
    for earlier, later in pairwise(kept):
        assert (earlier | ~later).all()


def test_kept_images_have_a_probability_of_source_below_exp_of_minus_the_threshold():
    logits = torch.linspace(-3, 3, 60)[:, None, None, None]
    scores = torch.stack([domain_loss(image[None], "source") for image in logits])
    for k, bound in enumerate((0.670, 0.449, 0.301, 0.202, 0.135, 0.091), start=1):
        kept = select_sources(scores, 0.4 * k)
        chance_of_source = torch.sigmoid(-logits.flatten())
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


# Labels, sizes, precision


@pytest.mark.parametrize("value", [4, -1, 254])
def test_labels_outside_the_classes_are_refused(value):
    logits, domain, labels = drawn()
    labels[1, 2, 3] = value
    complaint = rf"Labels of 4 classes are 0 to 3, and 255 for void; found \[{value}\]"
    for call in (
        lambda: pixel_difficulty_map(logits, labels),
        lambda: class_balance_map(labels, 4),
        lambda: pixadv_loss(logits, domain, labels),
        lambda: focal_loss(logits, labels),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()


def test_logits_on_the_feature_grid_are_refused():
    logits, domain, labels = drawn(size=(8, 8))
    coarse = logits[:, :, ::4, ::4]
    for function in (pixel_difficulty_map, focal_loss):
        with pytest.raises(TypeCheckError):
            function(coarse, labels)
    # Without the shape checks of the tests the message says what to do.
    with pytest.raises(ValueError, match=r"logits are 2x2, the labels 8x8: upsample the logits"):
        inspect.unwrap(pixel_difficulty_map)(coarse, labels)
    with pytest.raises(ValueError, match=r"per pixel of the labels \(2, 8, 8\); found \(2, 1, 2, 2\)\. Upsample"):
        inspect.unwrap(pixadv_loss)(logits, domain[:, :, ::4, ::4], labels)
    with pytest.raises(ValueError, match='reduce is "valid" or "all"; found \'mean\''):
        inspect.unwrap(pixadv_loss)(logits, domain, labels, reduce="mean")


def losses_of(logits, domain, labels):
    return torch.stack(
        [
            pixadv_loss(logits, domain, labels),
            pixadv_loss(logits, domain, labels, normalise_map=True),
            pixel_difficulty_map(logits, labels).mean(),
            focal_loss(logits, labels),
            distillation_loss(logits, logits.flip(1)),
            domain_loss(domain, "source"),
            domain_loss(domain, "target"),
        ]
    )


def test_low_precision_rounds_the_inputs_and_nothing_else():
    logits, domain, labels = drawn(batch=1, classes=19, size=(16, 16))
    coarse = logits.bfloat16(), domain.bfloat16()
    expected = losses_of(*(c.float() for c in coarse), labels)
    found = losses_of(*coarse, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses_of(*(c.float() for c in coarse), labels), expected)
    images = torch.rand(1, 3, 16, 16).bfloat16()
    styled = fourier_stylise(images, images.flip(0) / 2, 3)
    assert styled.dtype == torch.bfloat16
    torch.testing.assert_close(styled, fourier_stylise(images.float(), images.flip(0).float() / 2, 3).bfloat16())


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


def test_extreme_logits_give_finite_losses_and_gradients():
    logits, domain, labels = drawn()
    logits, domain = (1e4 * logits).float().requires_grad_(), (1e4 * domain).float().requires_grad_()
    total = losses_of(logits, domain, labels).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(domain.grad).all()


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_where_the_inputs_are(device):
    logits, domain, labels = drawn()
    there = losses_of(*(part.to(device) for part in (logits, domain, labels)))
    torch.testing.assert_close(there.cpu(), losses_of(logits, domain, labels))
    source, target = drawn_images(2, 3, 16, 16), drawn_images(2, 3, 16, 16, seed=1)
    styled = fourier_stylise(source.to(device), target.to(device), 3)
    np.testing.assert_allclose(styled.cpu(), stylised_by_numpy(source.numpy(), target.numpy(), 3), atol=1e-12)
    balance = class_balance_map(labels.to(device), 4)
    assert there.device.type == styled.device.type == balance.device.type == device
    assert select_sources(there, 0.5).device.type == device
