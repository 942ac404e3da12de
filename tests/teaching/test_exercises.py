"""The exercises test themselves: right answers pass, in any kind of number, and each slip is told by its own hint. Then
whatever else a reader may do, and the right answers that are not simply the library's."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

import fsslib as fss
from fsslib.methods import build_method
from fsslib.teaching import exercises
from tests.methods.contract import random_episode, random_images

EXERCISES = dict(exercises.every())
RIGHT = {name: exercise.function() for name, exercise in EXERCISES.items()}
LOSSES = [name for name, exercise in EXERCISES.items() if exercise.gradients]
COLLECTIONS = ("parts", "learners", "find_leaks")
POOL = fss.masked_average_pooling


def check(name, answer):
    getattr(fss.exercises, f"check_{name}")(answer)


def refused(name, answer):
    with pytest.raises(AssertionError) as error:
        check(name, answer)
    return str(error.value)


def after(name, change):
    """The right answer, changed; as a tensor unless it is a collection of names."""
    return lambda *given: change(found if isinstance(found := RIGHT[name](*given), set) else torch.as_tensor(found))


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answers_pass_with_one_line_whatever_kind_of_number_they_are(name, capsys):
    kinds = [lambda found: found, Tensor.float, lambda found: found if found.dim() else found[None]]
    kinds += [] if name in LOSSES else [Tensor.numpy, Tensor.tolist, lambda found: found.numpy().astype(np.float32)]
    for kind in kinds[:1] if name in COLLECTIONS else kinds:
        check(name, after(name, kind))
        line = capsys.readouterr().out
        assert line.startswith(f"passed: {name} ")
        assert line.count("\n") == 1


@pytest.mark.parametrize(("name", "hint"), [(name, hint) for name, one in EXERCISES.items() for hint in one.slips()])
def test_each_slip_is_told_by_its_own_hint(name, hint):
    assert hint in refused(name, EXERCISES[name].function(hint))


@pytest.mark.parametrize("name", sorted(EXERCISES.keys() - set(COLLECTIONS)))
def test_what_is_right_but_for_a_little_is_refused(name):
    assert refused(name, after(name, lambda found: 1.01 * found + 0.01))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_without_a_gradient_is_refused(name):
    for told in (refused(name, after(name, Tensor.detach)), refused(name, after(name, lambda f: f.detach().numpy()))):
        assert "gradient: no gradient comes back at all" in told or "logits are detached too" in told


@pytest.mark.parametrize("name", ["masked_average_pooling", "vote", "way_targets", "contrast", "upright"])
def test_a_change_in_place_is_told_and_makes_nothing_right(name, capsys):
    def spoiling(factor):
        def answer(*given):
            found = factor * RIGHT[name](*given)
            with torch.no_grad():
                return [found, *(value.zero_() for value in given if isinstance(value, Tensor))][0]

        return answer

    check(name, spoiling(1))
    assert "in place: work on a copy" in capsys.readouterr().out
    assert " Your function also changed argument 1" in refused(name, spoiling(0))


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("masked_average_pooling", lambda f, mask: POOL(f, mask.clamp_(max=1)), "void (255) counts as foreground"),
        (
            "background_prototype",
            lambda f, mask: POOL(f, 1 - mask.masked_fill_(mask == 255, 0)),
            "`mask == 0` does not. Your function also changed argument 2 in place",
        ),
        ("vote", lambda p: None, "golden votes 0 1 3 5 2: your function returned None. Is a return missing?"),
        ("find_leaks", lambda *given: None, "your function returned None"),
        ("vote", lambda p: "many", "your function returned 'many', which is no array of numbers"),
        ("miou", lambda rows: [[1, 2], [3]], "no array of numbers"),
        ("cosine_map", lambda f, p: fss.cosine_similarity_map(f, p)[:, None], "is (1, 1, 2, 2); expected (1, 2, 2)."),
        ("way_targets", lambda y, n: RIGHT["way_targets"](y, n).transpose(0, 1), "the ways on the second axis"),
        (
            "flattering_scores",
            lambda share: (share, share, 0),
            "expected (2,). Asked is (share of the foreground)",
        ),
        ("restyle", lambda f, m, s, a: f + math.nan, "60 values are NaN (0 / 0?). Keep the denominator above zero."),
        ("contrast_floor", lambda b, t: math.inf, "1 values are infinite"),
        ("orthogonality", lambda m, e: 0 * m.sum(), "3 items: found 0, expected 0.548365. Hint: mean of |cos|"),
        ("parts", lambda *given: "contrast", "unknown the text 'contrast'"),
        ("learners", lambda *given: ["teacher"], "unknown teacher"),
        ("towards_home", lambda f, m, a: f.mean(1), "Asked is (features [B, C, h, w], memory, alpha) -> features"),
        ("winning_probability", lambda ways: 0.5 if ways < 4 else 1 / 0, "ways: 2: one half is right for one way only"),
    ],
)
def test_what_cannot_be_right_is_said_plainly(name, answer, told):
    assert told in refused(name, answer)


def test_errors_of_the_readers_own_come_through_with_the_case():
    with pytest.raises(ZeroDivisionError) as error:
        check("vote", lambda predictions: 1 / 0)
    assert error.value.__notes__ == ["This came from your function, asked about: golden votes 0 1 3 5 2."]


def test_every_exercise_has_a_name_of_its_own_and_says_what_it_asks():
    assert len(EXERCISES) == len(list(exercises.every())) == 34
    assert set(dir(fss.exercises)) == {f"check_{name}" for name in EXERCISES}
    assert fss.exercises.check_vote.__name__ == "check_vote"
    assert fss.exercises.check_vote.__doc__.startswith("Check your_function(predictions [B, K, H, W]")
    assert all(one.difficulty in ("easy", "medium", "hard") and 0 < one.minutes <= 20 for one in EXERCISES.values())
    with pytest.raises(AttributeError, match="no exercise 'check_vot'"):
        _ = fss.exercises.check_vot


def test_the_counts_average_to_the_meters_miou_and_halving_is_what_a_loop_counts():
    rows, meter = [(7, 3, 2, 1), (8, 0, 4, 2), (7, 1, 1, 5)], fss.FewShotMeter([7, 8])
    for c, tp, fp, fn in rows:
        prediction, labels = torch.tensor([[1] * (tp + fp) + [0] * fn, [1] * tp + [0] * fp + [1] * fn])[:, None, None]
        meter.update(prediction, labels, torch.tensor([[c]]))
    assert RIGHT["miou"](rows) == pytest.approx(meter.compute().miou)
    for ema in (0.3, 0.5, 0.95):
        assert RIGHT["writes_until_halved"](ema) == next(n for n in range(100) if math.prod([ema] * n) <= 0.5)


def test_the_winning_probability_is_that_of_merge_ways():
    for ways in range(1, 6):
        for offset, winner in ((-1e-3, 0), (1e-3, 1)):
            foreground = torch.tensor([RIGHT["winning_probability"](ways) + offset] + [0.0] * (ways - 1))
            scores = fss.merge_ways(torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None])
            assert scores.argmax(1).item() == winner


def test_the_floor_and_the_pushes_are_those_of_the_loss():
    for images in (2, 5, 9):
        eye = torch.eye(images, dtype=torch.float64)
        found = fss.prototype_contrastive_loss(eye, eye, temperature=0.3)
        assert RIGHT["contrast_floor"](images, 0.3) == pytest.approx(found.item())
    cosines = torch.tensor([0.9, 0.1, -0.5, 0.3], requires_grad=True)
    (push,) = torch.autograd.grad(torch.cat([torch.ones(1), cosines]).div(0.3).logsumexp(0), cosines)
    torch.testing.assert_close(RIGHT["push_shares"](cosines.detach(), 0.3), push / push.sum())


def test_the_assignment_is_that_of_the_library():
    """One sample that belongs to one item moves this item alone, by the share the exercise computes."""
    generator = torch.Generator().manual_seed(1)
    items, samples = torch.rand(4, 12, generator=generator), torch.rand(3, 12, generator=generator)
    memory = fss.MetaMemory(6, items=4, ema=0.9, temperature=0.2)
    memory.store(*items.chunk(2, 1))
    memory.store(*samples.chunk(2, 1))
    share = RIGHT["assignment"](samples, items, memory.centre, 0.2)
    weight = share.sum(0)[:, None]
    expected = items + 0.1 * weight.clamp(max=1) * (share.T @ samples / weight - items)
    torch.testing.assert_close(torch.cat([memory.mean, memory.std], 1).detach(), expected)


@pytest.mark.parametrize(("contrast", "source", "target"), [case[1:] for case in EXERCISES["parts"].cases()])
def test_the_parts_are_those_of_the_method(contrast, source, target):
    rules = {"source": "lowest" if source else "none", "target": "highest" if target else "none"}
    losses = build_method("rtd", contrast=contrast, **rules).losses(random_episode(batch=2))
    assert set(losses) == RIGHT["parts"](contrast, source, target)


@pytest.mark.parametrize("adversary", ["none", "patch", "pixel"])
@pytest.mark.parametrize("select", [False, True])
def test_the_learners_are_those_of_the_method(adversary, select):
    method = build_method("pixda", num_classes=5, discriminator_width=4, adversary=adversary, select=select).train()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    batch = random_images(batch=2, height=32, width=64, classes=5, seed=0)
    hold = {name: torch.optim.SGD(groups, lr=0.1) for name, groups in method.parameter_groups().items()}
    method.training_step((batch, batch), hold)
    moved = {n.split(".")[0] for n, p in method.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"segmenter"} | RIGHT["learners"]("discriminators", adversary, select)


def test_upright_is_what_viewers_show():
    stored = torch.arange(1, 13).view(3, 4)
    for orientation in range(1, 9):
        image = Image.fromarray(stored.numpy().astype(np.uint8))
        image.getexif()[0x0112] = orientation
        shown = torch.from_numpy(np.array(ImageOps.exif_transpose(image)))
        assert torch.equal(RIGHT["upright"](stored, orientation), shown.long())
