"""PANet: the alignment loss by hand, and what void may not do. 3 s. What all methods do: test_contract.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.episodes import VOID, Episode
from fsslib.methods.panet import PANet
from fsslib.methods.prototype import PrototypeNetwork
from tests.methods.contract import random_episode, small_method


def tiny(**options) -> PANet:
    return small_method("panet", **options)


def test_the_answer_is_the_prototype_networks():
    method, episode = tiny().eval(), random_episode(ways=2, shots=2)
    plain = PrototypeNetwork(method.backbone, resize="features").eval()
    assert torch.equal(method(episode), plain(episode))


# The losses


def test_the_query_is_learnt_from_its_own_logits_and_alignment_can_be_left_out():
    episode = random_episode(ways=2, shots=2)
    with torch.no_grad():
        both, alone = tiny().losses(episode), tiny(alignment_weight=0.0).losses(episode)
        expected = F.cross_entropy(tiny().train()(episode), episode.query_labels, ignore_index=VOID)
        half = tiny(alignment_weight=0.5).losses(episode)
    assert (set(both), set(alone)) == ({"segmentation", "alignment"}, {"segmentation"})
    torch.testing.assert_close(both["segmentation"], expected)
    torch.testing.assert_close(alone["segmentation"], expected)
    torch.testing.assert_close(half["alignment"], both["alignment"] / 2)


def small(batch=2, ways=2, shots=2, side=6, channels=4, seed=0) -> tuple[torch.Tensor, ...]:
    """Random features of supports and query at the size of the masks, random logits of the query, and the episode."""
    torch.manual_seed(seed)
    support = torch.randn(batch * ways * shots, channels, side, side)
    query = torch.randn(batch, channels, side, side)
    coarse = torch.randn(batch, 1 + ways, side, side)
    episode = random_episode(batch=batch, ways=ways, shots=shots)
    episode = replace(
        episode,
        support_images=episode.support_images[..., :side, :side],
        support_masks=torch.randint(0, 2, (batch, ways, shots, side, side)),
        query_images=episode.query_images[..., :side, :side],
        query_labels=torch.randint(0, 1 + ways, (batch, side, side)),
    )
    episode.support_masks[..., 0, :] = VOID
    episode.query_labels[:, -1] = VOID
    return support, query, coarse, episode


def alignment_by_hand(support, query, coarse, episode: Episode, scale: float = 20.0) -> float:
    """The loss in loops: prototypes from the predicted masks, each support image against its own way."""

    def cosine(a, b):
        return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)

    support, query, coarse = (x.double().numpy() for x in (support, query, coarse))
    masks, labels = episode.support_masks.numpy(), episode.query_labels.numpy()
    batch, ways, shots = masks.shape[:3]
    total = 0.0
    for b in range(batch):
        predicted = np.where(labels[b] == VOID, VOID, coarse[b].argmax(0))
        prototypes = [query[b][:, predicted == c].sum(1) / ((predicted == c).sum() + 1e-5) for c in range(1 + ways)]
        for n in range(ways):
            if not (predicted == n + 1).any():
                continue
            for k in range(shots):
                features, costs = support.reshape(batch, ways, shots, *support.shape[1:])[b, n, k], []
                for y, x in np.argwhere(masks[b, n, k] != VOID):
                    logits = np.array([scale * cosine(features[:, y, x], prototypes[c]) for c in (0, n + 1)])
                    costs.append(np.log(np.exp(logits).sum()) - logits[masks[b, n, k, y, x]])
                total += np.mean(costs) / (batch * ways * shots)
    return total


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (2, 3)])
def test_the_alignment_loss_by_hand(ways, shots):
    parts = small(ways=ways, shots=shots)
    assert tiny()._alignment(*parts).item() == pytest.approx(alignment_by_hand(*parts), rel=1e-5)


def test_a_way_that_is_predicted_nowhere_costs_nothing():
    support, query, coarse, episode = small()
    coarse[:, 2] = -100
    loss = tiny()._alignment(support, query, coarse, episode)
    assert loss.item() == pytest.approx(alignment_by_hand(support, query, coarse, episode), rel=1e-5)
    coarse[:, 1] = -100
    assert tiny()._alignment(support, query, coarse, episode) == 0


def test_the_alignment_teaches_the_backbone():
    method, episode = tiny().train(), random_episode()
    method.losses(episode)["alignment"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.backbone.network.stage4.parameters())


def test_a_support_of_void_alone_costs_nothing():
    support, query, coarse, episode = small()
    nothing = replace(episode, support_masks=torch.full_like(episode.support_masks, VOID))
    assert tiny()._alignment(support, query, coarse, nothing) == 0
