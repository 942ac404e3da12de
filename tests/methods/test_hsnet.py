"""HSNet: the paper's learner by its numbers, its answers by the direct form, the vote, and that it learns. About 15 s.

That encode and decode equal forward, that batches do not mix, and whatever else every method must do is in
test_contract.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from fsslib.blocks.backbones import WeightsError, build_backbone
from fsslib.blocks.correlation import feature_pyramid
from fsslib.blocks.pooling import merge_shots
from fsslib.blocks.similarity import merge_ways
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import VOID, Episode
from fsslib.methods import hsnet
from fsslib.methods.hsnet import HSNet, Learner
from fsslib.methods.released import load_released
from fsslib.training.recipe import Recipe
from tests.blocks import direct_correlation as direct
from tests.methods.contract import by_heart, random_episode


def tiny(**options) -> HSNet:
    torch.manual_seed(0)
    return HSNet(build_backbone("tiny"), **options).eval()


def without_memory(name: str) -> HSNet:
    """The paper's network on the meta device: it has shapes, but neither numbers nor costs."""
    with torch.device("meta"):
        return HSNet(build_backbone(name, **HSNet.backbone_options(name)))


def only(episode: Episode, ways: list[int], shots: list[int]) -> Episode:
    return replace(
        episode,
        support_images=episode.support_images[:, ways][:, :, shots],
        support_masks=episode.support_masks[:, ways][:, :, shots],
        class_ids=episode.class_ids[:, ways],
    )


# The paper's network


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        ("resnet50", 2_573_794, (3, 6, 4)),
        ("resnet101", 2_587_394, (3, 23, 4)),
        ("vgg16", 2_570_018, (1, 3, 3)),
    ],
)
def test_the_learner_is_the_papers(name, parameters, layers):
    method = without_memory(name)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == parameters
    assert sum(p.numel() for p in method.learner.parameters()) == parameters
    shapes = [[(b.query.kernel_size[0], b.stride, b.query.out_channels) for b in e] for e in method.learner.encoders]
    assert shapes == [
        [(3, 2, 16), (3, 2, 64), (3, 2, 128)],
        [(5, 4, 16), (3, 2, 64), (3, 2, 128)],
        [(5, 4, 16), (5, 4, 64), (3, 2, 128)],
    ]
    assert tuple(encoder[0].query.in_channels for encoder in method.learner.encoders) == layers
    for mixer in method.learner.mixers:
        assert [(b.query.kernel_size, b.query.in_channels, b.stride) for b in mixer] == [((3, 3), 128, 1)] * 3
    optimizer = Recipe.load("hsnet_paper").optimizers_of(0, method)["segmenter"]
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == parameters
    assert [(type(optimizer).__name__, g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("Adam", 1e-3, 0)
    ]


@pytest.mark.parametrize(("name", "coarsest"), [("resnet50", 13), ("vgg16", 12)])
def test_shapes_at_400_pixels(name, coarsest):
    method = without_memory(name)
    episode = random_episode(batch=2, height=400, width=400).to("meta")
    seen = []
    for blocks in (*method.learner.encoders, *method.learner.mixers):
        blocks[-1].norm.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    method.learner.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    assert method(episode).shape == (2, 2, 400, 400)
    grids = [coarsest, 25, 25, 50, 50]
    assert seen == [*((2, 128, n, n, 2, 2) for n in grids), (2, 2, 100, 100)]


def test_levels_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match=r"grids of \(1, 1\) and \(2, 2\).*multiples of 32"):
        without_memory("vgg16")(random_episode(height=264, width=264).to("meta"))
    for finer in (3, 16):
        with pytest.raises(ValueError, match=f"found {finer}"):
            Learner([(1, 1), (1, finer)], 32)


# The answer


def test_the_answer_is_the_direct_forms():
    """The whole method against the released way of computing, on odd sizes, in a batch, with a level of each kind."""
    torch.manual_seed(0)
    method = HSNet(build_backbone("resnet18", stages=("layer1", "layer2"), output_stride=32), width=32).eval()
    episode = random_episode(height=41, width=56)
    masks = (episode.support_masks[:, 0, 0] == 1).float()[:, None]

    def unit(level, mask):
        masked = level * F.interpolate(mask, level.shape[-2:], mode="bilinear", align_corners=True)[:, None]
        return masked / (masked.norm(dim=2, keepdim=True) + 1e-5)

    with torch.no_grad():
        query = [
            unit(level, torch.ones_like(masks)) for level in feature_pyramid(method.backbone, episode.query_images)
        ]
        levels = feature_pyramid(method.backbone, episode.support_images[:, 0, 0])
        support = [unit(level, masks) for level in levels]
        logits = direct.answer(method.learner, query, support)
        expected = F.interpolate(logits, (41, 56), mode="bilinear", align_corners=True)
        assert [level.shape[1] for level in query] == [2, 2]
        torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-4)


def test_pairs_one_by_one_or_together_give_one_answer_and_one_loss(monkeypatch):
    method, episode = tiny(), random_episode(batch=3, shots=2)
    with torch.no_grad():
        together = method(episode)
        monkeypatch.setattr(hsnet, "largest_piece", lambda device: 1)
        torch.testing.assert_close(method(episode), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method(episode).detach(), together, rtol=1e-4, atol=1e-5)


def test_without_an_object_the_support_does_not_matter():
    method, episode = tiny(), random_episode()
    nothing = replace(episode, support_masks=torch.where(episode.support_masks == 1, 0, episode.support_masks))
    other = replace(nothing, support_images=1 - nothing.support_images)
    with torch.no_grad():
        assert torch.equal(method(nothing), method(other))
        assert not torch.allclose(method(episode), method(nothing))
        void = replace(episode, support_masks=torch.where(episode.support_masks == VOID, 0, episode.support_masks))
        assert torch.equal(method(episode), method(void))


# Several shots and ways


def test_shots_vote_each_on_its_own():
    """The release: votes over the largest number of votes in the image, an object from one half on."""
    torch.manual_seed(3)
    method, episode = tiny(), random_episode(batch=3, shots=5)
    episode = replace(episode, support_images=torch.rand_like(episode.support_images))
    with torch.no_grad():
        support, query = method.encode_both(episode)
        answers = method.shot_answers(support, query)
        method.learner.decoder[-1].bias[1] -= (answers[:, :, :, 1] - answers[:, :, :, 0]).median()  # half is object
        alone = [method.predict(only(episode, [0], [shot])).labels for shot in range(5)]
        found = method.predict(episode)
    votes = torch.stack(alone).sum(0).numpy()
    assert len(np.unique(votes)) > 2, "all shots agree: nothing is tested"
    expected = np.stack([image / max(image.max(), 1) >= 0.5 for image in votes])
    assert np.array_equal(found.labels.numpy(), expected)
    assert torch.equal(found.labels, merge_shots(torch.stack(alone, 1), rule="vote"))
    assert torch.equal(found.scores.argmax(1), found.labels)
    assert found.presence[:, 0].tolist() == expected.any((1, 2)).tolist()


def test_several_ways_are_asked_one_by_one_and_their_shots_averaged():
    method, episode = tiny(), random_episode(ways=2, shots=3)
    with torch.no_grad():
        apart = [torch.stack([method(only(episode, [way], [shot])) for shot in range(3)]).mean(0) for way in range(2)]
        expected = merge_ways(torch.stack(apart, 1).softmax(2)).log()
        torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(method.predict(episode).scores, expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_each_shot_and_way_without_void():
    method, episode = tiny(), random_episode(ways=2, shots=2)
    costs = []
    for way in range(2):
        labels = torch.where(episode.query_labels == VOID, VOID, (episode.query_labels == way + 1).long())
        for shot in range(2):
            probability = method(only(episode, [way], [shot])).double().softmax(1)
            known = (labels != VOID).nonzero().tolist()
            costs += [-probability[b, labels[b, y, x], y, x].log().item() for b, y, x in known]
    assert len(costs) == 2 * 2 * 2 * 31 * 32
    assert method.losses(episode)["segmentation"].item() == pytest.approx(np.mean(costs), rel=1e-5)


# Learning


def test_one_episode_is_learnt_by_heart_and_the_backbone_stays_as_it_is():
    """60 steps on random features: half the loss of knowing the object's size alone, and most of the object found.

    At a rate of 0.003 the loss falls steadily; at 0.01 it leaps now and then, at steps that depend on the processor.
    """
    source = ToyWorld()
    episode = source.episode(source.sample((1001,), 1, seed="by-heart"))
    method = tiny().train()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    assert not any(module.training for module in method.backbone.modules())
    assert method.learner.training
    losses, found = by_heart(method, episode, Recipe.load("hsnet").with_changes(learning_rate=0.003), 60)
    share = (episode.query_labels == 1).float().mean()
    assert losses["segmentation"][1] < 0.5 * torch.distributions.Bernoulli(share).entropy()
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert found > 0.5


# The authors' checkpoints


def released(name: str) -> dict[str, torch.Tensor]:
    """juhongm999/hsnet, saved from DataParallel: torchvision's network with its classifier, and the learner.

    Each tensor holds its own number throughout and takes no room on the disk.
    """
    with torch.device("meta"):
        shapes = {f"backbone.{k}": v.shape for k, v in torchvision.models.get_model(name).state_dict().items()}
    layers = {"resnet50": (3, 6, 4), "vgg16": (1, 3, 3)}[name]
    kernels = {"4": (3, 3, 3), "3": (5, 3, 3), "2": (5, 5, 3), "4to3": (3, 3, 3), "3to2": (3, 3, 3)}
    for (block, sides), first in zip(kernels.items(), (*layers, 128, 128)):
        widths = (128, 128, 128) if "to" in block else (16, 64, 128)
        for number, (inputs, outputs, side) in enumerate(zip((first, *widths), widths, sides)):
            for half in ("conv1", "conv2"):
                stem = f"hpn_learner.encoder_layer{block}.{3 * number}.{half}"
                shapes |= {f"{stem}.weight": (outputs, inputs, side, side), f"{stem}.bias": (outputs,)}
            stem = f"hpn_learner.encoder_layer{block}.{3 * number + 1}"
            shapes |= {f"{stem}.weight": (outputs,), f"{stem}.bias": (outputs,)}
    for place, inputs, outputs in (("1.0", 128, 128), ("1.2", 128, 64), ("2.0", 64, 64), ("2.2", 64, 2)):
        stem = f"hpn_learner.decoder{place}"
        shapes |= {f"{stem}.weight": (outputs, inputs, 3, 3), f"{stem}.bias": (outputs,)}
    return {
        f"module.{k}": torch.tensor(i if k.endswith("tracked") else float(i)).expand(shape)
        for i, (k, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize(
    ("name", "backbone_pairs"),
    [
        ("resnet50", {"backbone.layer3.5.bn2.running_var": "network.layer3.5.bn2.running_var"}),
        ("vgg16", {"backbone.features.28.weight": "network.block5.28.weight"}),
    ],
)
def test_every_released_tensor_but_the_classifiers_has_its_place(name, backbone_pairs, tmp_path):
    state = released(name)
    torch.save(state, tmp_path / "released.pt")
    method = HSNet(build_backbone(name, **HSNet.backbone_options(name)))
    load_released(method, tmp_path / "released.pt")
    ours = method.state_dict()
    kept = {k: v for k, v in state.items() if not k.startswith(("module.backbone.fc.", "module.backbone.classifier."))}
    assert sorted(v.flatten()[0].item() for v in ours.values()) == sorted(v.flatten()[0].item() for v in kept.values())
    learner_pairs = {
        "encoder_layer4.0.conv1.weight": "encoders.0.0.query.weight",
        "encoder_layer2.3.conv2.bias": "encoders.2.1.support.bias",
        "encoder_layer3.7.weight": "encoders.1.2.norm.weight",
        "encoder_layer4to3.0.conv2.weight": "mixers.0.0.support.weight",
        "encoder_layer3to2.7.bias": "mixers.1.2.norm.bias",
        "decoder1.2.weight": "decoder.2.weight",
        "decoder2.0.weight": "decoder.5.weight",
        "decoder2.2.bias": "decoder.7.bias",
    }
    for theirs, here in backbone_pairs.items():
        assert torch.equal(ours[f"backbone.{here}"], state[f"module.{theirs}"])
    for theirs, here in learner_pairs.items():
        assert torch.equal(ours[f"learner.{here}"], state[f"module.hpn_learner.{theirs}"])
    if name == "vgg16":
        torch.save({k: v for k, v in state.items() if "decoder2.2.bias" not in k}, tmp_path / "cut.pt")
        with pytest.raises(WeightsError, match=r"Missing key.*learner\.decoder\.7\.bias"):
            load_released(method, tmp_path / "cut.pt")
