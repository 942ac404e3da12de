"""The checks of notebook 70: a right answer passes with one line, a typical slip is refused with its hint. 1 s."""

import pytest
import torch

from fsslib.methods import build_method
from fsslib.teaching.exercises import pixda as checks
from tests.methods.contract import random_images


def learners(phase, adversary, select):
    if phase != "discriminators":
        return {"segmenter"}
    asked = {"pixel_discriminator": adversary == "pixel", "image_discriminator": select or adversary == "patch"}
    return {name for name, is_asked in asked.items() if is_asked}


def keep(p_source, delta):
    return p_source.log().mean(1).exp() < torch.tensor(-delta).exp()


def distillation(student, teacher):
    return -((teacher.detach() / 2).softmax(1) * student.log_softmax(1)).mean()


def rare_mean(per_class, shares):
    rare = sorted(shares, key=shares.get)[: round(len(shares) / 3)]
    found = [per_class[name] for name in rare if per_class[name] is not None]
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_learners, learners),
        (checks.check_keep, keep),
        (checks.check_keep, lambda p, delta: keep(p, delta).tolist()),
        (checks.check_distillation, distillation),
        (checks.check_rare_mean, rare_mean),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {check.__name__.removeprefix('check_')}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("adversary", ["none", "patch", "pixel"])
@pytest.mark.parametrize("select", [False, True])
def test_the_learners_are_those_of_the_method(adversary, select):
    method = build_method("pixda", num_classes=5, discriminator_width=4, adversary=adversary, select=select).train()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    batch = random_images(batch=2, height=32, width=64, classes=5, seed=0)
    hold = {name: torch.optim.SGD(groups, lr=0.1) for name, groups in method.parameter_groups().items()}
    method.training_step((batch, batch), hold)
    moved = {n.split(".")[0] for n, p in method.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"segmenter"} | learners("discriminators", adversary, select)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda p, a, s: None, "Is a return missing"),
        (lambda p, a, s: "segmenter", "a collection of names"),
        (lambda p, a, s: learners(p, a, s) | {"teacher"}, "unknown teacher"),
        (lambda p, a, s: learners("discriminators", a, s) | {"segmenter"}, "phase 'source'.*Hint: the source has no"),
        (lambda p, a, s: learners(p, a, s) | {"segmenter"}, "segmenter does not learn here. Hint: predictions are det"),
        (
            lambda p, a, s: learners(p, a, s) | ({"pixel_discriminator"} if p == "target" and a == "pixel" else set()),
            "phase 'target', adversary 'pixel'.*hold still",
        ),
        (lambda p, a, s: learners(p, a, False), "select=True: the image discriminator learns here"),
        (lambda p, a, s: learners(p, "pixel", s), "the pixel discriminator does not learn here. Hint:.*only then"),
    ],
)
def test_slips_with_the_learners(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_learners(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda p, d: ~keep(p, d), "these are the images that go"),
        (lambda p, d: p.mean(1) < torch.tensor(-d).exp(), "arithmetic mean"),
        (lambda p, d: p.log().mean(1).exp() < d, "delta bounds the score"),
        (lambda p, d: p.log().mean(1).exp() < 1 - d, "not 1 - delta"),
        (lambda p, d: -p.log().sum(1) > d, "not a sum"),
        (lambda p, d: p.amax(1) < torch.tensor(-d).exp(), "the surest patch decides"),
        (lambda p, d: keep(p, d)[:5], "the shape is"),
        (lambda p, d: keep(p, 2 * d), "values differ"),
    ],
)
def test_slips_with_keeping(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_keep(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda s, t: distillation(s / 2, t), "on the teacher alone"),
        (lambda s, t: distillation(s, 2 * t), "divided by 2"),
        (lambda s, t: distillation(s, t) * s.shape[1], "sum over the classes"),
        (lambda s, t: distillation(t, s), "changed places"),
        (lambda s, t: distillation(s, t) - distillation(t / 2, t), "this is the divergence"),
        (lambda s, t: -distillation(s, t), "the sign"),
        (lambda s, t: -((t / 2).softmax(1) * s.log_softmax(1)).mean(), "the teacher gets a gradient"),
        (lambda s, t: 0.5 * distillation(s, t), "values differ"),
    ],
)
def test_slips_with_distillation(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_distillation(slip)


def of_the(choose, empty=None):
    def slip(per_class, shares):
        found = [empty if per_class[name] is None else per_class[name] for name in choose(per_class, shares)]
        found = [value for value in found if value is not None]
        return sum(found) / len(found)

    return slip


def by_share(shares):
    return sorted(shares, key=shares.get)


def third(shares):
    return round(len(shares) / 3)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (of_the(lambda p, s: by_share(s)[-third(s) :]), "most frequent"),
        (of_the(lambda p, s: sorted((n for n in p if p[n] is not None), key=p.get)[: third(s)]), "not by the IoU"),
        (of_the(lambda p, s: s), "over all classes"),
        (of_the(lambda p, s: by_share(s)[: third(s)], empty=0.0), "it is no 0"),
        (of_the(lambda p, s: [n for n in by_share(s) if p[n] is not None][: third(s)]), "no other takes its place"),
        (of_the(lambda p, s: by_share(s)[: len(s) // 3]), "a third of 11 is 4"),
        (of_the(lambda p, s: by_share(s)[: -(-len(s) // 3)]), "a third of 7 is 2"),
        (lambda p, s: 100 * rare_mean(p, s), "values differ"),
    ],
)
def test_slips_with_the_rare_third(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_rare_mean(slip)


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))
