"""RtD: its parts one by one, what happens in training and what in test, and input that is bad. About 5 s.

What all methods do is in test_contract.py, the memory and the losses are in tests/blocks.
"""

from dataclasses import replace

import pytest
import torch

from fsslib.episodes import Episode
from fsslib.methods import build_method
from fsslib.methods.base import TrainingDiverged
from fsslib.methods.rtd import RememberTheDifference
from fsslib.training.recipe import Recipe
from tests.methods.contract import random_episode, small_method

ROWS = {
    "BS": {"contrast": False, "source": "none", "target": "none"},
    "Cons": {"contrast": True, "source": "none", "target": "none"},
    "Cons+MEnS": {"contrast": True, "source": "lowest", "target": "none"},
    "MEnS+MEnT": {"contrast": False, "source": "lowest", "target": "highest"},
    "all": {"contrast": True, "source": "lowest", "target": "highest"},
}


def build(**options) -> RememberTheDifference:
    return small_method("rtd", **options)


def episode(**options) -> Episode:
    """Four episodes of four classes."""
    made = random_episode(**{"batch": 4} | options)
    return replace(made, class_ids=made.class_ids + 10 * torch.arange(len(made))[:, None])


def step(method: RememberTheDifference, batch: Episode) -> dict[str, float]:
    values = method.train().training_step(batch, Recipe.load("rtd").optimizers_of(0, method))
    with torch.no_grad():
        method.after_step()
    return values


# The rows of the ablation


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_ablation_is_a_configuration(row):
    method, remembers = build(**ROWS[row]), "MEn" in row or row == "all"
    parts = ["segmentation", *["contrast"] * ROWS[row]["contrast"], *["orthogonality"] * remembers]
    assert list(step(method, episode())) == parts
    assert int(method.memory.filled) == 8 * remembers


def test_the_baseline_is_the_prototype_network():
    baseline, prototypes = build(**ROWS["BS"]), build_method("prototype")
    prototypes.load_state_dict({k: v for k, v in baseline.state_dict().items() if not k.startswith("memory.")})
    batch = episode()
    torch.testing.assert_close(baseline.eval()(batch), prototypes.eval()(batch))
    torch.testing.assert_close(baseline.losses(batch)["segmentation"], prototypes.losses(batch)["segmentation"])


def test_defaults_are_the_whole_method():
    method = build()
    assert (method.contrast, method.source, method.target) == (True, "lowest", "highest")
    assert (method.memory_after, method.memory.mean.shape) == ("stage1", (32, 32))


def test_the_place_of_the_memory_is_an_option_and_behind_layer1_of_a_resnet():
    method = build(memory_after="stage2", items=5)
    assert method.memory.mean.shape == (5, 64)
    step(method, episode())
    assert int(method.memory.filled) == 5
    resnet = build(backbone="resnet18")
    assert (resnet.memory_after, resnet.memory.mean.shape) == ("layer1", (32, 64))


# Training


def test_the_memory_is_written_after_the_step_and_never_in_test():
    method, batch = build(), episode()
    method.train().losses(batch)
    assert int(method.memory.filled) == 0
    with torch.no_grad():
        method.after_step()
    assert int(method.memory.filled) == 8  # four supports and four queries
    held = {k: v.clone() for k, v in method.memory.state_dict().items()}
    method.eval().predict(batch)
    method.after_step()
    assert all(torch.equal(v, held[k]) for k, v in method.memory.state_dict().items())


def test_orthogonality_alone_moves_the_items():
    method = build(items=3, ema=1.0)
    step(method, episode())
    held = method.memory.mean.detach().clone()
    losses = method.train().losses(episode(seed=1))
    (losses["segmentation"] + losses["contrast"]).backward(retain_graph=True)
    assert method.memory.mean.grad is None or not method.memory.mean.grad.any()
    losses["orthogonality"].backward()
    assert method.memory.mean.grad.abs().max() > 0
    step(method, episode(seed=1))
    assert not torch.equal(method.memory.mean, held)


def test_the_foreign_support_counts_as_much_as_the_plain_one():
    """With a memory that holds nothing the foreign support is the plain one, and the loss is the baseline's."""
    batch = episode()
    plain = build(**ROWS["BS"]).eval().losses(batch)["segmentation"]
    method = build(**ROWS["MEnS+MEnT"]).eval()
    torch.testing.assert_close(method.losses(batch)["segmentation"], plain)
    step(method, batch)
    torch.manual_seed(3)
    changed = method.eval().losses(batch)["segmentation"]
    torch.manual_seed(4)
    assert not torch.isclose(method.losses(batch)["segmentation"], changed, atol=1e-7, rtol=0)


@pytest.mark.parametrize("source", ["none", "lowest", "random", "mix"])
@pytest.mark.parametrize("positive", ["twin", "query"])
def test_every_switch_trains(source, positive):
    method = build(source=source, positive=positive)
    for seed in range(2):
        values = step(method, episode(seed=seed))
    assert all(torch.isfinite(torch.tensor(v)) for v in values.values())


def test_a_way_that_is_absent_has_no_pair():
    method = build(source="none", positive="query").eval()
    batch = episode(ways=2)
    absent = replace(batch, query_labels=torch.where(batch.query_labels == 2, 0, batch.query_labels))
    first = replace(absent, **{k: getattr(absent, k)[:, :1] for k in ("support_images", "support_masks", "class_ids")})
    torch.testing.assert_close(method.losses(absent)["contrast"], method.losses(first)["contrast"])


# Test time


def test_styles_come_home_in_test():
    method, batch = build(items=4), episode()
    step(method, batch)
    foreign = replace(batch, query_images=0.2 * batch.query_images)
    home = method.eval()(foreign)
    method.target = "none"
    assert not torch.allclose(home, method(foreign), atol=1e-3)
    method.target, method.alpha = "highest", 1.0
    at_all = method(foreign)
    method.target = "none"
    torch.testing.assert_close(at_all, method(foreign))


def test_the_most_similar_item_is_the_one():
    """All of the own style given up for an item that has the image's own statistics: nothing changes."""
    method, batch = build(items=12, alpha=0.0).eval(), episode()
    untouched = method(batch)
    method.losses(batch)
    method.after_step()
    torch.testing.assert_close(method(batch), untouched, rtol=1e-3, atol=1e-3)


# Bad input


@pytest.mark.parametrize("positive", ["twin", "query"])
def test_small_and_empty_batches_are_defined(positive):
    method = build(positive=positive)
    alone = step(method, episode(batch=1))
    assert alone["contrast"] == 0
    batch = episode()
    step(method, replace(batch, support_masks=torch.zeros_like(batch.support_masks)))
    same = step(method, replace(batch, class_ids=torch.full_like(batch.class_ids, 7)))
    assert same["contrast"] == 0
    flat = replace(batch, support_images=torch.full_like(batch.support_images, 0.5))
    assert all(torch.isfinite(torch.tensor(v)) for v in step(method, flat).values())


def test_nan_is_refused_and_not_remembered():
    method, batch = build(), episode()
    step(method, batch)
    held = method.memory.mean.detach().clone()
    with pytest.raises(TrainingDiverged, match="segmentation = nan"):
        step(method, replace(batch, query_images=torch.full_like(batch.query_images, float("nan"))))
    assert torch.equal(method.memory.mean, held)
