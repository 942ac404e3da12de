"""PixDA: the three phases of its step, who is frozen when, the selection of source images, the teacher. About 15 s."""

import copy
from itertools import count
from unittest.mock import Mock

import pytest
import torch

from fsslib.blocks.adversarial import domain_loss, focal_loss, pixadv_loss
from fsslib.data.streams import ImageStream, PairStream, ahead
from fsslib.episodes import VOID, LabelledImages
from fsslib.methods.base import TrainingDiverged
from fsslib.training.checkpoint import load_checkpoint
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe
from tests.methods.contract import optimizers_of, random_images, small_method

CLASSES = 5


class Noise:
    """A segmentation source of random pictures: a picture is a function of its id."""

    name, domain = "noise", "noise"

    def __init__(self, count: int, height: int = 32, width: int = 64):
        self.class_names = {n: str(n) for n in range(CLASSES)}
        self.ids = tuple(str(i) for i in range(count))
        self.height, self.width = height, width

    def images(self, ids):
        parts = [
            random_images(batch=1, height=self.height, width=self.width, classes=CLASSES, seed=int(i)) for i in ids
        ]
        return LabelledImages(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]), "noise")


def pairs(sources=12, targets=3, batch_size=2, **target_size) -> PairStream:
    source, target = Noise(sources), Noise(targets, **target_size)
    return PairStream(
        ImageStream(source, source.ids, batch_size, "s"), ImageStream(target, target.ids, batch_size, "t")
    )


def pixda(**options):
    defaults = {"num_classes": CLASSES, "source_images": 12, "discriminator_width": 4}
    return small_method("pixda", **(defaults | options)).train()


def moved(method, before) -> set[str]:
    """Which of the three networks differ from what they were."""
    return {n.split(".")[0] for n, p in method.named_parameters() if not torch.equal(p, before[n])}


def test_fooling_leaves_no_gradient_on_the_discriminator_nor_telling_apart_on_the_segmenter():
    batch, gradients = pairs().batch(0), []
    for weight in (1000.0, 0.0):
        method = pixda(select=False, adversarial_weight=weight)
        method.training_step(batch, optimizers_of(method, 0.0))
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
    strong, weak = gradients
    for name in (name for name in weak if name.startswith("pixel_discriminator")):
        torch.testing.assert_close(weak[name], strong[name])
    head = "segmenter.head.branches.0.weight"
    assert not torch.allclose(weak[head], strong[head])


RELEASED = {"detach_maps": False, "count_ignored": True, "reduce": "all"}


@pytest.mark.parametrize(
    ("options", "pixadv", "focal"),
    [
        ({}, {}, {}),
        ({"count_ignored": True}, {"count_ignored": True}, {}),
        (RELEASED, RELEASED, {}),
        ({"as_released": True}, RELEASED, {"as_released": True}),
        ({"adversary": "none"}, None, {}),
    ],
)
def test_what_counts_void_and_as_released_reaches_the_losses(options, pixadv, focal):
    """On data with void: both adversarial losses of the step, and the focal loss of both of its domains and of one."""
    method, (source, target) = pixda(select=False, stylise=False, **options).eval(), pairs(height=33, width=60).batch(0)
    assert (target.labels == VOID).any()
    assert method.segmenter.as_released == bool(focal)
    logits = {images: method(images) for images in (source, target)}
    wanted = {
        "source": focal_loss(logits[source], source.labels, **focal),
        "target": focal_loss(logits[target], target.labels, **focal),
    }
    if pixadv is not None:
        judged_as = method.pixel_discriminator(logits[target].softmax(1))
        wanted["adversarial"] = 0.1 * pixadv_loss(logits[target], judged_as, target.labels, **pixadv)
    gradients = torch.autograd.grad(sum(wanted.values()), list(method.segmenter.parameters()), allow_unused=True)
    assert method.losses(target)["segmentation"].item() == pytest.approx(wanted["target"].item())
    told = [method.pixel_discriminator(logits[images].softmax(1)) for images in (source, target)]
    values = method.training_step((source, target), optimizers_of(method, 0.0))
    if pixadv is not None:
        judging = 0.5 * (domain_loss(told[0], "source") + domain_loss(told[1], "target"))
        assert values["pixel_discriminator"] == pytest.approx(judging.item())
    assert {name: values[name] for name in wanted} == pytest.approx({n: v.item() for n, v in wanted.items()})
    for p, gradient in zip(method.segmenter.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_sizes_may_differ_a_batch_of_one_and_a_target_without_labels_are_defined():
    method = pixda()
    values = method.training_step(pairs(batch_size=1, height=48, width=80).batch(0), optimizers_of(method))
    assert all(torch.isfinite(torch.tensor(v)) for v in values.values())
    source, target = pairs().batch(0)
    blank = LabelledImages(target.images, torch.full_like(target.labels, VOID))
    with pytest.raises(ValueError, match="this batch of the target has none"):
        method.training_step((source, blank), optimizers_of(method))
    for options in ({"difficulty": False, "balance": False}, {"adversary": "patch"}):
        method = pixda(**options)
        values = method.training_step((source, blank), optimizers_of(method))
        assert values["target"] == 0 < values["adversarial"]
    method = pixda(adversary="none")
    assert method.training_step((source, blank), optimizers_of(method))["target"] == 0


class Judge(torch.nn.Module):
    """Takes what is sure to be of the first class for the source, or the other way round."""

    def __init__(self, knows: int):
        super().__init__()
        self.knows = knows

    def forward(self, probabilities):
        return -self.knows * probabilities[:, :1]


@pytest.mark.parametrize("adversary", ["pixel", "patch"])
def test_the_area_under_the_curve_is_one_for_a_judge_that_knows_and_a_half_for_one_that_does_not(adversary):
    method = pixda(adversary=adversary).eval()
    method.segmenter = torch.nn.Identity()
    red, grey = torch.tensor([0.8, 0.1, 0.1])[:, None, None], torch.full((3, 1, 1), 0.3)
    noise = 0.1 * torch.rand(2, 4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    exams = {
        name: Mock(batches=lambda _, shown=colour + n: [LabelledImages(shown, torch.zeros(4, 20, 20).long(), "")])
        for name, colour, n in zip(("game", "cities"), (red, grey), noise)
    }
    for knows, area in ((1, 1.0), (-1, 0.0)):
        method.pixel_discriminator = method.image_discriminator = Judge(knows)
        assert method.measures(exams) == {"discriminator_auc": area}
    exams["game"] = exams["cities"]
    assert method.measures(exams)["discriminator_auc"] == pytest.approx(0.5, abs=0.01)
    assert pixda(adversary="none").measures(exams) == {}


def test_nan_moves_nothing():
    method, (source, target) = pixda(), pairs().batch(0)
    before = copy.deepcopy(dict(method.named_parameters()))
    broken = LabelledImages(torch.full_like(target.images, float("nan")), target.labels)
    with pytest.raises(TrainingDiverged):
        method.training_step((source, broken), optimizers_of(method))
    assert moved(method, before) == set()


# Selection


def judged(scores, **options):
    """A method with given scores in place of the discriminator's."""
    method = pixda(**options)
    method.selection_scores = lambda stream, positions, step=0: torch.tensor([scores[i] for i in positions])
    return method


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        # 12 images are 6 steps; above 0.4 are 7 images, 3 steps; above 0.8 are 3, one step; above 1.2 none: the end.
        ([0.1 * i for i in range(12)], [range(12)] * 6 + [range(5, 12)] * 3 + [range(9, 12)] + [range(12)]),
        ([0.0] * 6 + [0.5] * 6, [range(12)] * 6 + [range(6, 12)] * 3),
        ([0.0] * 10 + [9.0] * 2, [range(12)] * 6 + [range(10, 12)]),  # exactly a batch left: it goes on
        ([0.0] * 12, [range(12)] * 8),
    ],
)
def test_kept_sets_are_nested_the_threshold_grows_and_the_adversary_rests_after_the_end(scores, kept):
    method, stream = judged(scores), pairs()
    for step, expected in enumerate(kept):
        source, _ = batch = method.draw_batch(stream, step)
        assert method.kept.nonzero().flatten().tolist() == list(expected)
        ended = step >= 6 and len(expected) == 12
        assert bool(method.selecting) is not ended
        allowed = stream.source.source.images(map(str, expected)).images
        assert all((image == allowed).flatten(1).all(1).any() for image in source.images)
        if step in (0, len(kept) - 1):
            assert ("adversarial" in method.training_step(batch, optimizers_of(method))) is not ended


def test_a_stream_of_one_domain_selects_nothing():
    method, stream = judged([0.0] * 12), pairs()
    for step in range(8):
        assert torch.equal(method.draw_batch(stream.source, step).images, stream.source.batch(step).images)
    assert (int(method.passes), bool(method.selecting)) == (0, True)


def test_batches_made_ahead_are_selected_alike():
    scores, stream = [0.1 * i for i in range(12)], pairs()
    plain, threaded = judged(scores), judged(scores)
    with ahead({"both": stream}, 2, 10) as (streams, _):
        for step in range(11):
            found, expected = threaded.draw_batch(streams["both"], step), plain.draw_batch(stream, step)
            assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected))
    assert not plain.selecting


def test_all_are_looked_at_in_order_each_time_beside_other_targets():
    stream = pairs(targets=30)
    shown = list(stream.side_by_side(range(11, -1, -1), 5))
    assert [len(source) for source, _ in shown] == [8, 4]
    images = stream.source.source.images(map(str, range(11, -1, -1))).images
    assert torch.equal(torch.cat([source.images for source, _ in shown]), images)
    for (_, target), step in zip(shown, (5, 5 + 8)):
        assert torch.equal(target.images, stream.target.batch(step).images)


def test_the_real_scores_flip_with_the_domains_and_scoring_changes_no_state():
    method, stream = pixda(stylise=False), pairs()
    before = copy.deepcopy(method.state_dict())
    scores = method.selection_scores(stream, list(range(12)))
    assert scores.shape == (12,)
    assert method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    with torch.no_grad():
        method.image_discriminator[-1].weight.neg_()
        method.image_discriminator[-1].bias.neg_()
    flipped = method.selection_scores(stream, list(range(12)))
    assert torch.equal(scores.argsort(), flipped.argsort(descending=True))


# Distillation, resuming, fine-tuning


def test_the_teacher_is_the_segmenter_before_fine_tuning_and_never_moves():
    method = pixda(distillation=True)
    optimizers = optimizers_of(method)
    assert "distillation" not in method.losses(random_images(classes=CLASSES))
    method.training_step(pairs().batch(0), optimizers)
    before = copy.deepcopy(method.segmenter.state_dict())
    values = method.training_step(random_images(classes=CLASSES), optimizers)
    assert values["distillation"] > 0
    method.training_step(random_images(classes=CLASSES, seed=1), optimizers)
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert not method.teacher.training
    assert method.training
    without = pixda()
    assert set(without.training_step(random_images(classes=CLASSES), optimizers_of(without))) == {"segmentation"}
    assert not any(name.startswith("teacher") for name in without.state_dict())


@pytest.mark.parametrize("stop", [1, 4, 7], ids=["first pass", "second pass", "fine-tuning"])
def test_resume_is_bit_identical_in_each_phase(tmp_path, stop):
    recipe = Recipe.load("pixda_fine_tuning").with_changes(steps=8)
    assert [phase.steps for phase in recipe.phases] == [6, 2]

    def training(file, stop=None):
        method, stream = pixda(distillation=True, threshold=0.0001, source_images=6), pairs(sources=6)
        data, steps, step = (
            {"both": stream, "source": stream.source, "target": stream.target},
            count(),
            method.training_step,
        )

        def until_stopped(*arguments):
            if next(steps) == stop:
                raise KeyboardInterrupt
            return step(*arguments)

        method.training_step = until_stopped
        history = fit(method, recipe, data, checkpoint=tmp_path / file, checkpoint_every=1, progress=False)
        return history, method.state_dict()

    _, whole = training("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        training("parts.pt", stop)
    assert load_checkpoint(tmp_path / "parts.pt")["phase"] == (1 if stop >= 6 else 0)
    history, resumed = training("parts.pt")
    assert len(history.rows) == 8
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_control_for_fine_tuning_moves_statistics_and_no_weight():
    method, stream = pixda(), pairs()
    recipe = Recipe.load("pixda_batch_norm")
    only = Recipe(phases=(recipe.phases[1].model_copy(update={"steps": 3}),))
    before = {name: value.double() for name, value in copy.deepcopy(method.state_dict()).items()}
    fit(method, only, {"target": stream.target}, progress=False)
    weights = {name for name, _ in method.named_parameters()}
    moved_by = {name: (value.double() - before[name]).abs().max().item() for name, value in method.state_dict().items()}
    assert max(moved_by[name] for name in weights) < 1e-12
    assert max(moved for name, moved in moved_by.items() if name.endswith("running_mean")) > 1e-3


def test_the_head_learns_faster_than_the_backbone_when_told():
    method = pixda(head_rate=10.0)
    optimizer = Recipe.load("pixda_source_only").optimizers_of(0, method)["segmenter"]
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["head"] == pytest.approx(10 * rates["backbone"])
