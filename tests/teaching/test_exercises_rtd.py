"""The checks of notebook 50: a right answer passes with one line, a typical slip is refused with its hint. 3 s."""

import math

import pytest
import torch
from scipy import stats

from fsslib.blocks.memory import feature_statistics, restyle
from fsslib.methods import build_method
from fsslib.teaching.exercises import rtd as checks
from tests.methods.contract import random_episode


def parts(contrast, source, target):
    names = ["segmentation"]
    if contrast:
        names.append("contrast")
    if source or target:
        names.append("orthogonality")
    return names


def towards_home(features, memory, alpha, rule="highest"):
    mean, std = feature_statistics(features)
    alike = torch.cosine_similarity(mean[:, None], memory.mean[None], dim=2)
    alike = alike + torch.cosine_similarity(std[:, None], memory.std[None], dim=2)
    index = alike.argmax(1) if rule == "highest" else alike.argmin(1)
    return restyle(features, memory.mean[index].detach(), memory.std[index].detach(), alpha)


def mixing(features, order, alpha):
    mean, std = feature_statistics(features)
    return restyle(features, mean[order], std[order], alpha)


def paired_interval(ours, baseline):
    gaps = torch.tensor([ours[unit] - baseline[unit] for unit in ours], dtype=torch.float64)
    reach = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std() / math.sqrt(len(gaps))
    return (gaps.mean() - reach).item(), (gaps.mean() + reach).item()


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_parts, parts),
        (checks.check_towards_home, towards_home),
        (checks.check_mixing, mixing),
        (checks.check_paired_interval, paired_interval),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {answer.__name__}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("target", [False, True])
def test_the_parts_are_those_of_the_method(contrast, source, target):
    rules = {"source": "lowest" if source else "none", "target": "highest" if target else "none"}
    losses = build_method("rtd", contrast=contrast, **rules).losses(random_episode(batch=2))
    assert list(losses) == parts(contrast, source, target)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda c, s, t: parts(c, s, t)[1:], "segmentation is paid here.*where the object ends"),
        (lambda c, s, t: parts(c or s, s, t), "contrast is not paid here.*own switch"),
        (lambda c, s, t: parts(c, s, False), "target=True: orthogonality is paid here.*in training or in test"),
        (lambda c, s, t: [*parts(c, s, t), "memory"], "unknown memory"),
        (lambda c, s, t: None, "Is a return missing"),
        (lambda c, s, t: "segmentation", "a collection of names"),
    ],
)
def test_slips_with_the_parts(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_parts(slip)


def of_the_first(features, memory, alpha):
    index = memory.select(*feature_statistics(features[:1]), "highest").expand(len(features), 2)
    return memory.enhance(features, index, alpha)


def writing(features, memory, alpha):
    found = towards_home(features, memory, alpha)
    memory.store(*feature_statistics(features))
    return found


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda f, m, a: towards_home(f, m, a, "lowest"), "which training takes"),
        (lambda f, m, a: towards_home(f, m, 1 - a), r"6 images, 5 items: alpha is the share of the own style"),
        (lambda f, m, a: towards_home(f, m, 0.0), "gone entirely"),
        (lambda f, m, a: f, "did not change"),
        (of_the_first, "that of the first"),
        (writing, "the memory was written"),
        (lambda f, m, a: towards_home(f, m, a)[:1], "the shape is"),
    ],
)
def test_slips_on_the_way_home(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_towards_home(slip)


def mixed_features(features, order, alpha):
    share = alpha[:, None, None, None]
    return share * features + (1 - share) * features[order]


def mixed_means(features, order, alpha):
    mean, std = feature_statistics(features)
    return restyle(features, mean[order], std, alpha)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (mixed_features, "two pictures in one"),
        (lambda f, o, a: mixing(f, o, 1 - a), "the other one's"),
        (lambda f, o, a: f, "Re-order the statistics"),
        (lambda f, o, a: mixing(f, o, 0 * a), "alpha is not used"),
        (lambda f, o, a: restyle(f[o], *feature_statistics(f), a), "the contents are re-ordered"),
        (mixed_means, "mix both statistics"),
        (lambda f, o, a: mixing(f, o, a) + 1, "values differ"),
    ],
)
def test_slips_with_mixing(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_mixing(slip)


def interval_of(gaps, spread, quantile):
    reach = quantile * spread / math.sqrt(len(gaps))
    return gaps.mean().item() - float(reach), gaps.mean().item() + float(reach)


def by_place(ours, baseline):
    return paired_interval(dict(enumerate(ours.values())), dict(enumerate(baseline.values())))


def differences(ours, baseline):
    return torch.tensor([ours[unit] - baseline[unit] for unit in ours], dtype=torch.float64)


def unpaired(ours, baseline):
    gaps = differences(ours, baseline)
    spread = math.hypot(*(torch.tensor(list(part.values())).std().item() for part in (ours, baseline)))
    return interval_of(gaps, spread, stats.t.ppf(0.975, len(gaps) - 1))


def with_quantile(quantile_of, correction=1, factor=lambda n: 1.0):
    def slip(ours, baseline):
        gaps = differences(ours, baseline)
        spread = gaps.std(correction=correction).item() * factor(len(gaps))
        return interval_of(gaps, spread, quantile_of(len(gaps)))

    return slip


def student(n):
    return stats.t.ppf(0.975, n - 1)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (by_place, "pair them by their keys"),
        (unpaired, "the pairs are lost"),
        (with_quantile(lambda n: 1.96), "belongs to many runs"),
        (with_quantile(student, correction=0), "not by n"),
        (with_quantile(student, factor=math.sqrt), "the mean of n runs is surer"),
        (with_quantile(lambda n: stats.t.ppf(0.975, n)), "n degrees of freedom"),
        (lambda ours, baseline: (0.0, 1.0), "values differ"),
    ],
)
def test_slips_with_the_interval(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_paired_interval(slip)


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))
