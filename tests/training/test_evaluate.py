"""Evaluation that encodes an image once: the answers stay, the images are counted, the room is kept. About 5 s."""

import pytest
import torch

from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import EpisodeManifest, EpisodeSet, sample_rows
from fsslib.methods import build_method
from fsslib.methods.hsnet import HSNet
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.training import evaluate as evaluation
from fsslib.training.evaluate import evaluate
from tests.methods.contract import EPISODIC, small_method


def exam(*, ways=1, shots=1, images=4, episodes=9) -> EpisodeSet:
    """Episodes over `images` pictures of each of three classes."""
    world = ToyWorld(size=32)
    pictures = {c: [f"c{c}-{number:06d}" for number in range(images)] for c in (1001, 1002, 1003)}
    rows = sample_rows(pictures, tuple(pictures), episodes, ways=ways, shots=shots, seed="again")
    return EpisodeSet(world, EpisodeManifest(tuple(rows)))


def distinct(questions: EpisodeSet) -> int:
    rows = questions.manifest.rows
    supports = {(i, c) for row in rows for c, way in zip(row.classes, row.supports) for i in way}
    return len(supports) + len({row.query for row in rows})


def watch(method, monkeypatch, name="encode") -> list[int]:
    """How many images or episodes each call of `encode` or `predict` gets."""
    calls, original = [], getattr(method, name)
    monkeypatch.setattr(method, name, lambda *inputs: calls.append(len(inputs[0])) or original(*inputs))
    return calls


@pytest.mark.parametrize(("ways", "shots"), [(1, 3), (2, 1)])
@pytest.mark.parametrize("name", EPISODIC)
def test_every_method_answers_as_without_and_encodes_each_image_once(name, ways, shots, monkeypatch):
    method, questions = small_method(name), exam(ways=ways, shots=shots)
    whole = evaluate(method, questions, batch_size=4, keep_bytes=0)
    calls = watch(method, monkeypatch)
    monkeypatch.setattr(method, "forward", None)
    found = evaluate(method, questions, batch_size=4)
    assert sum(calls) == distinct(questions) < 9 * (ways * shots + 1)
    # A pixel on the edge of a decision may fall either way when a batch is summed in another order.
    assert (found.ways - whole.ways).abs().max() <= 2
    assert torch.equal(found.binary.sum(1), whole.binary.sum(1))


def test_bfloat16_is_kept_as_it_is():
    method, questions = small_method("prototype"), exam()
    whole = evaluate(method, questions, dtype=torch.bfloat16, keep_bytes=0)
    found = evaluate(method, questions, dtype=torch.bfloat16)
    assert (found.ways - whole.ways).abs().max() <= 0.05 * 32 * 32


@pytest.mark.parametrize("room", [1, 3, 100])
def test_no_more_is_kept_than_there_is_room_for_and_nothing_at_the_end(room, monkeypatch):
    method, questions = small_method("prototype").eval(), exam(episodes=30)
    of_query = 64 * 8 * 8 * 4 + 2 * 8
    most, kept = [0, 0], []
    encoded = evaluation._Kept.encoded

    def watched(self, *inputs):
        found = encoded(self, *inputs)
        if self not in kept:
            kept.append(self)
        sizes = [sum(tensor.untyped_storage().nbytes() for tensor in made.values()) for made in self._kept.values()]
        most[kept.index(self)] = max(most[kept.index(self)], sum(sizes))
        return found

    monkeypatch.setattr(evaluation._Kept, "encoded", watched)
    calls = watch(method, monkeypatch)
    found = evaluate(method, questions, batch_size=4, keep_bytes=room * of_query)
    supports, queries = kept
    assert 0 < most[0] <= room * of_query
    assert min(room, 3) * of_query <= most[1] <= room * of_query
    assert (sum(calls) == distinct(questions)) == (room == 100)
    assert supports._kept == queries._kept == {}
    assert supports._room == queries._room == room * of_query
    whole = evaluate(method, questions, batch_size=4, keep_bytes=0)
    assert (found.ways - whole.ways).abs().max() <= 2


def test_episodes_that_hardly_repeat_are_answered_as_a_whole(monkeypatch):
    method, questions = small_method("prototype"), exam(images=1000, episodes=20)
    assert distinct(questions) > 0.9 * 40
    calls = watch(method, monkeypatch)
    evaluate(method, questions)
    assert calls == []


def test_a_method_that_answers_otherwise_than_its_parts_is_asked_as_a_whole(monkeypatch):
    class OtherAnswer(HSNet):
        def predict(self, episode):
            return super().predict(episode)

    class OtherForward(PrototypeNetwork):
        def forward(self, batch):
            return super().forward(batch)

    class OtherParts(OtherForward):
        def decode(self, support, query):
            return super().decode(support, query)

    backbone = small_method("prototype").backbone
    for method, splits in (
        (OtherAnswer(backbone), False),
        (OtherForward(backbone), False),
        (OtherParts(backbone), True),
        (build_method("rtd", target="random"), False),
        (build_method("rtd", target="highest"), True),
    ):
        asked = watch(method, monkeypatch, "predict")
        evaluate(method, exam())
        assert bool(asked) != splits, type(method).__name__
