"""The exercises test themselves: right answers pass, in any kind of number, and each slip is told by its own hint. Then
whatever else a reader may do; what the right answers mean; and that lessons leave open what the solutions solve."""

import ast
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

import fsslib as fss
from fsslib.methods import build_method
from fsslib.paths import shipped
from fsslib.teaching import exercises, lesson
from tests.methods.contract import random_episode, random_images

EXERCISES = dict(exercises.every())
RIGHT = {name: exercise.function() for name, exercise in EXERCISES.items()}
LOSSES = [name for name, exercise in EXERCISES.items() if exercise.gradients]
COLLECTIONS = ("at_work", "learners", "find_leaks")


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


@pytest.mark.parametrize("name", ["prototype_of_shots", "vote", "way_targets", "contrast", "upright"])
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
        ("prototype_of_shots", lambda f, m: RIGHT["prototype_of_shots"](f, m.clamp_(max=1)), "void (255) counts as"),
        ("ring_prototype", lambda f, m, width: RIGHT["ring_prototype"](f, m % 255, width), "`mask != 1` takes it in."),
        (
            "ring_prototype",
            lambda f, m, width: RIGHT["ring_prototype"](f, m.remainder_(255), width),
            "argument 2 in place",
        ),
        ("vote", lambda p: print(end=""), "golden votes 0 1 3 5 2: your function returned None. Is a return missing?"),
        ("find_leaks", lambda rows, *given: rows.sort(key=str), "your function returned None"),
        ("vote", lambda p: "many", "your function returned 'many', which is no array of numbers"),
        ("miou", lambda rows: [[1, 2], [3]], "no array of numbers"),
        ("cosine_maps", lambda f, p: RIGHT["cosine_maps"](f, p)[:, None], "is (1, 1, 2, 2, 2); expected (1, 2, 2, 2)."),
        ("way_targets", lambda y, n: RIGHT["way_targets"](y, n).transpose(0, 1), "the ways on the second axis"),
        ("paired_interval", lambda a, b: (0, 1, 2), "expected (2,). Asked is (ours, baseline, scores by"),
        ("margin", lambda *given: [math.nan] * 5, "5 values are NaN (0 / 0?). Keep the denominator above zero."),
        ("price_of_confusion", lambda b, t: math.inf, "1 values are infinite"),
        ("closest_pair", lambda m, e: 0 * m.sum(), "3 items: found 0, expected 0.869044. Hint: the largest |cos|"),
        ("at_work", lambda *given: "written", "unknown the text 'written'"),
        ("learners", lambda *given: ["teacher"], "unknown teacher"),
        ("towards_several", lambda f, *given: f.mean(1), "Asked is (features [B, C, h, w], memory, alpha, count)"),
        ("winning_probability", lambda ways: 0.5 if ways < 4 else 1 / 0, "ways: 2: one half is right for one way only"),
    ],
)
def test_what_cannot_be_right_is_said_plainly(name, answer, told):
    assert told in refused(name, answer)


def test_errors_of_the_readers_own_come_through_with_the_case():
    with pytest.raises(ZeroDivisionError) as error:
        check("vote", lambda predictions: 1 / 0)
    assert error.value.__notes__ == ["This came from your function, asked about: golden votes 0 1 3 5 2."]


def stub(predictions):
    """What a reader finds, but for this line."""
    # predictions [B, K, H, W]
    ...  # noqa: PIE790


@pytest.mark.parametrize("untouched", [..., stub, lambda predictions: ..., lambda predictions: None])
def test_what_is_not_answered_yet_is_open_and_no_failure(untouched, capsys):
    check("vote", untouched)
    check("one_shot_iou", untouched if untouched is ... else lambda answer, masks: ...)
    assert capsys.readouterr().out.splitlines() == [
        "exercise 10.4 is open (medium, 10 minutes)",
        "exercise 85.2 is open (medium, 15 minutes)",
    ]


def test_progress_tells_what_is_solved_in_the_lessons_that_were_begun(monkeypatch, capsys):
    monkeypatch.setattr(exercises, "SOLVED", {})
    fss.exercises.progress()
    assert capsys.readouterr().out == "No exercise was checked in this kernel yet.\n"
    check("upright", ...)
    check("vote", RIGHT["vote"])
    check("ring_prototype", RIGHT["ring_prototype"])
    assert refused("ring_prototype", EXERCISES["ring_prototype"].function(EXERCISES["ring_prototype"].slips()[0]))
    capsys.readouterr()
    fss.exercises.progress()
    assert capsys.readouterr().out.splitlines() == [
        "notebook 10: 1 of 4 exercises solved",
        "  10.1 open    prototype_of_shots (medium, 15 minutes)",
        "  10.2 open    upsampling_matrix (hard, 15 minutes)",
        "  10.3 open    ring_prototype (medium, 15 minutes)",  # solved once, and wrong since
        "  10.4 solved  vote (medium, 10 minutes)",
        "notebook 85: 0 of 2 exercises solved",
        "  85.1 open    upright (medium, 10 minutes)",
        "  85.2 open    one_shot_iou (medium, 15 minutes)",
    ]


def test_every_exercise_has_a_name_of_its_own_and_says_what_it_asks():
    assert len(EXERCISES) == len(list(exercises.every())) == 34
    assert set(dir(fss.exercises)) == {"progress", *(f"check_{name}" for name in EXERCISES)}
    assert fss.exercises.check_vote.__name__ == "check_vote"
    assert fss.exercises.check_vote.__doc__.startswith("Check your_function(predictions [B, K, H, W]")
    assert all(one.difficulty in ("easy", "medium", "hard") and 0 < one.minutes <= 20 for one in EXERCISES.values())
    with pytest.raises(AttributeError, match="no exercise 'check_vot'"):
        _ = fss.exercises.check_vot


def answers_in(path: Path) -> dict[str, tuple[ast.FunctionDef, str, str]]:
    """Of each check in a notebook, in their order: the function it asks, as code and as text, and what was printed."""
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "fss.exercises.check_" in (source := "".join(cell["source"])):
            function, call, *_ = ast.parse(source).body
            printed = "".join(line for output in cell["outputs"] for line in output["text"])
            code = ast.get_source_segment(source, function)
            found[call.value.func.attr.removeprefix("check_")] = function, code, printed
    return found


@pytest.mark.parametrize("path", sorted(shipped("notebooks").glob("[0-8]*.ipynb")), ids=lambda path: path.stem[:2])
def test_lessons_leave_open_what_the_solutions_solve(path):
    asked = dict(exercises.every([int(path.stem[:2])]))
    stubs, solved = answers_in(path), answers_in(path.parent / "solutions" / path.name)
    assert list(stubs) == list(solved) == list(asked)
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    for name, one in asked.items():
        (function, code, printed), (solution, answer, passed) = stubs[name], solved[name]
        assert ast.unparse(function.body) == "..."
        assert "    # return " in code
        assert printed.startswith(f"exercise {one.number} is open ({one.difficulty}, {one.minutes} minutes)\n")
        assert (function.name, ast.unparse(function.args)) == (solution.name, ast.unparse(solution.args))
        assert passed.startswith(f"passed: {name} ")
        assert not [cell for cell in cells if answer.partition("\n")[2] in cell]
    assert f"0 of {len(asked)} exercises solved" in printed
    assert f"{len(asked)} of {len(asked)} exercises solved" in passed


def test_right_answers_are_what_they_are_said_to_be():
    rows, meter = [(7, 3, 2, 1), (8, 0, 4, 2), (7, 1, 1, 5)], fss.FewShotMeter([7, 8])
    for c, tp, fp, fn in rows:
        maps = torch.tensor([[1] * (tp + fp) + [0] * fn, [1] * tp + [0] * fp + [1] * fn])[:, None, None]
        meter.update(*maps, torch.tensor([[c]]))
    kept = [(c, tp / (tp + fp + fn), tp + fp + fn) for c, tp, fp, fn in rows]
    assert RIGHT["miou"](kept) == pytest.approx(meter.compute().miou)

    features, first, second = torch.rand(3, 5, 6, 4), torch.rand(2, 3, 5) + 0.1, torch.rand(2, 3, 5) + 0.1
    a, b = torch.rand(2, 3)
    twice = fss.restyle(fss.restyle(features, *first, a), *second, b)
    once = fss.restyle(features, *RIGHT["restyle_twice"](first, a, second, b), a * b)
    torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-3)

    cosines = torch.linspace(-0.5, 0.8, 6)
    odds = torch.cat([RIGHT["even_cosine"](cosines, 0.1)[None], cosines]) / 0.1
    assert F.cross_entropy(odds, torch.tensor(0)).item() == pytest.approx(math.log(2), rel=1e-5)

    logits = torch.rand(2, 4, 3, 3).requires_grad_()
    (slope,) = torch.autograd.grad(RIGHT["soft_distillation"](logits, logits.detach(), 3.0), logits)
    assert slope.abs().max() < 1e-6, "a student like its teacher has nothing to learn"

    for ways in range(1, 6):
        for offset, winner in ((-1e-3, 0), (1e-3, 1)):
            foreground = torch.tensor([RIGHT["winning_probability"](ways) + offset] + [0.0] * (ways - 1))
            scores = fss.merge_ways(torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None])
            assert scores.argmax(1).item() == winner


@pytest.mark.parametrize(("contrast", "source", "target"), [case[1:] for case in EXERCISES["at_work"].cases()])
def test_at_work_is_what_the_method_does(contrast, source, target):
    rules = {"source": "lowest" if source else "none", "target": "highest" if target else "none"}
    method, episode = build_method("rtd", contrast=contrast, **rules).train(), random_episode(batch=2)
    shown, read = [], []
    method.backbone.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    enhance = method.memory.enhance
    method.memory.enhance = lambda *given: read.append(method.training) or enhance(*given)
    for _ in range(2):  # what is read was written before
        method.losses(episode)
        method.after_step()
    passes = sum(shown)
    method.eval().predict(episode)
    happened = {
        "second pass": passes > 2 * 4,
        "written": int(method.memory.filled) > 0,
        "read in training": True in read,
        "read in test": False in read,
    }
    assert {name for name, did in happened.items() if did} == RIGHT["at_work"](contrast, source, target)


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


def test_a_lesson_is_found_by_its_place_whatever_else_has_its_name(tmp_path, monkeypatch):
    for name in ("n10.py", "lessons.py"):
        (tmp_path / name).write_text("raise ImportError('the wrong one')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    lesson.cache_clear()
    assert lesson(10).vote.difficulty == "medium"
    assert lesson(10) is lesson(10)
    assert not [name for name in sys.modules if name.startswith(("n10", "lessons", "fsslib_lesson"))]
    with pytest.raises(ValueError, match="Notebook 11 has nothing of its own; there are 0, 10"):
        lesson(11)
