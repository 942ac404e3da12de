"""Checks for the exercises of notebook 70: who learns from which phase, the selection's rule in probabilities,
distillation, the mean IoU of the rarest third."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from fsslib.blocks.adversarial import distillation_loss, select_sources
from fsslib.teaching.exercises.pooling import _agree

__all__ = ["check_distillation", "check_keep", "check_learners", "check_rare_mean"]

_NETWORKS = ("segmenter", "pixel_discriminator", "image_discriminator")


def check_learners(your_function: Callable[[str, str, bool], Iterable[str]]) -> None:
    """Check `your_function(phase, adversary, select) -> names` of the networks that get a gradient, in any order.

    Phases are "source", "target" and "discriminators", adversaries "none", "patch" and "pixel". Prints one line when
    the function is right for all eighteen cases. Raises AssertionError with a hint.
    """
    hints = {
        ("source", True): "the source has no adversary: the segmenter learns from its labels, nobody else",
        ("target", True): "discriminators hold still while the target is told to look like the source",
        ("discriminators", True): "predictions are detached here",
        ("pixel", False): "the pixel discriminator is trained when it is the adversary, and only then",
        ("image", False): "the image discriminator is trained when the selection asks it, or the patch adversary does",
    }
    phases, adversaries = ("source", "target", "discriminators"), ("none", "patch", "pixel")
    cases = list(itertools.product(phases, adversaries, (False, True)))
    for phase, adversary, select in cases:
        judging = phase == "discriminators"
        expected = {
            "segmenter": not judging,
            "pixel_discriminator": judging and adversary == "pixel",
            "image_discriminator": judging and (select or adversary == "patch"),
        }
        found = your_function(phase, adversary, select)
        if found is None or isinstance(found, str):
            raise AssertionError(f"the answer is a collection of names; found {found!r}. Is a return missing?")
        found = set(found)
        case = f"phase {phase!r}, adversary {adversary!r}, select={select}"
        if unknown := sorted(found - set(_NETWORKS)):
            raise AssertionError(f"{case}: unknown {', '.join(unknown)}; the names are {', '.join(_NETWORKS)}.")
        for name, learns in expected.items():
            if (name in found) != learns:
                about_the_phase = not judging or name == "segmenter"
                hint = hints[(phase, True) if about_the_phase else (name.partition("_")[0], False)]
                says = "learns" if learns else "does not learn"
                raise AssertionError(f"{case}: the {name.replace('_', ' ')} {says} here. Hint: {hint}.")
    print(f"passed: learners is right for all {len(cases)} cases")


def check_keep(your_function: Callable[[Tensor, float], Tensor]) -> None:
    """Check `your_function(p_source [images, patches], delta) -> [images]`, true for the source images that stay.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the surely-source
    kept, the arithmetic mean, a bound of delta or 1 - delta, one patch deciding.
    """
    generator = torch.Generator().manual_seed(0)
    # Patches that differ widely: their two means are far apart.
    p_source = torch.rand(400, 6, generator=generator).clamp(0.01, 0.99)
    deltas = (0.4, 0.8, 1.2)
    for delta in deltas:
        bound, geometric = math.exp(-delta), p_source.log().mean(1).exp()
        expected = select_sources(-p_source.log().mean(1), delta)
        slips = {
            "these are the images that go: high P(source) is dropped.": ~expected,
            "this is the arithmetic mean; the score is a mean of logarithms.": p_source.mean(1) < bound,
            "delta bounds the score; the bound of the probability is exp(-delta).": p_source.log().mean(1).exp()
            < delta,
            "the bound of the probability is exp(-delta), not 1 - delta.": geometric < 1 - delta,
            "the score is a mean over the patches, not a sum.": -p_source.log().sum(1) > delta,
            "the surest patch decides here; take the mean over all.": p_source.amax(1) < bound,
        }
        found = your_function(p_source.clone(), delta)
        found = torch.tensor(found) if isinstance(found, list) else found
        found = found.long() if isinstance(found, Tensor) else found
        _agree(f"delta {delta}", found, expected.long(), {hint: wrong.long() for hint, wrong in slips.items()})
    print(f"passed: keep agrees with the library for {len(p_source)} images at {len(deltas)} thresholds")


def check_distillation(your_function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(student [B, C, H, W], teacher [B, C, H, W]) -> number`: temperature 2 on the teacher alone,
    mean over pixels and classes, no gradient into the teacher.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 4, 5), (1, 11, 3, 2), (3, 5, 1, 1))
    for shape in shapes:
        student, teacher = 3 * torch.randn(2, *shape, generator=generator)
        expected = distillation_loss(student, teacher)
        softened = (teacher / 2).softmax(1)
        entropy = -(softened * softened.log()).mean()
        slips = {
            "the student has no temperature: it is on the teacher alone.": distillation_loss(student / 2, teacher),
            "the teacher's logits are divided by 2 before their softmax.": distillation_loss(
                student, teacher, teacher_temperature=1.0
            ),
            "this is the sum over the classes; take their mean, too.": distillation_loss(
                student, teacher, class_reduce="sum"
            ),
            "student and teacher have changed places: the teacher's softmax weighs the student's log.": (
                distillation_loss(teacher, student)
            ),
            "the entropy of the teacher is taken off: this is the divergence. Its gradient is the same, its value is "
            "not.": expected - entropy,
            "the sign: a cross-entropy is positive.": -expected,
        }
        wanted = teacher.clone().requires_grad_()
        found = your_function(student.clone().requires_grad_(), wanted)
        _agree(f"logits {shape}", found.detach() if isinstance(found, Tensor) else found, expected, slips)
        if found.requires_grad and torch.autograd.grad(found, wanted, allow_unused=True)[0] is not None:
            raise AssertionError(f"logits {shape}: the teacher gets a gradient. Detach its logits.")
    print(f"passed: distillation agrees with the library on {len(shapes)} shapes, and leaves the teacher alone")


def check_rare_mean(your_function: Callable[[Mapping[str, float | None], Mapping[str, float]], float]) -> None:
    """Check `your_function(per_class, shares) -> mean IoU` of the rarest third of the classes, by their shares.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the third of the
    lowest IoU, the most frequent third, a class without an IoU counted as 0 or replaced by the next one.
    """
    generator = torch.Generator().manual_seed(0)
    for classes, missing in ((11, False), (12, True), (7, False)):
        names = [f"class {n}" for n in range(classes)]
        shares = dict(zip(names, torch.rand(classes, generator=generator).tolist()))
        ious = dict(zip(names, torch.rand(classes, generator=generator).tolist()))
        order, count = sorted(names, key=shares.get), round(classes / 3)
        per_class = ious | ({order[0]: None} if missing else {})
        seen = [name for name in order if per_class[name] is not None]

        def mean(chosen: Iterable[str], empty: float | None = None, found: Mapping = per_class) -> Tensor:
            values = [empty if found[name] is None else found[name] for name in chosen]
            values = [value for value in values if value is not None]
            return torch.tensor(sum(values) / len(values))

        slips = {
            "these are the most frequent classes.": mean(order[-count:]),
            "the third is chosen by the shares of the pixels, not by the IoU.": mean(
                sorted(seen, key=per_class.get)[:count]
            ),
            "this is the mean over all classes.": mean(order),
            "a class without an IoU is not in the truth: leave it out of the mean, it is no 0.": mean(
                order[:count], 0.0
            ),
            "a class without an IoU still counts as one of the rarest third; no other takes its place.": mean(
                seen[:count]
            ),
            f"a third of {classes} is {count}, rounded to a whole number.": mean(order[: classes // 3]),
        }
        if mean(order[: classes // 3]).isclose(mean(order[:count])):
            slips[f"a third of {classes} is {count}, rounded to a whole number."] = mean(order[: -(-classes // 3)])
        found = your_function(dict(per_class), dict(shares))
        _agree(f"{classes} classes", torch.tensor(found, dtype=torch.float32), mean(order[:count]), slips)
    print("passed: rare_mean is right for 11, 12 and 7 classes, with and without one that is never seen")
