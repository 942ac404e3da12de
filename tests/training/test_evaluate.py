"""Evaluation that encodes an image once: the answers stay, the images are counted, the room is kept.

And the protocols of the plans at full scale, on small images in the real formats. About 10 s.
"""

from functools import partial

import pytest
import torch

from fsslib.data.streams import ImageSet
from fsslib.data.toyworld import ToyWorld
from fsslib.data.toyworld.streets import Streets
from fsslib.episodes import EpisodeManifest, EpisodeSet, sample_rows
from fsslib.methods import build_method
from fsslib.methods.hsnet import HSNet
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.training import evaluate as evaluation
from fsslib.training.evaluate import evaluate, mean_loss
from tests.methods.contract import EPISODIC, SPLIT, small_method


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
@pytest.mark.parametrize("name", SPLIT)
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
    whole, found = (evaluate(method, questions, dtype=torch.bfloat16, keep_bytes=room) for room in (0, 2**30))
    assert (found.ways - whole.ways).abs().max() <= 2


@pytest.mark.parametrize("room", [1, 3, 100])
def test_no_more_is_kept_than_there_is_room_for_and_nothing_at_the_end(room, monkeypatch):
    method, questions = small_method("prototype").eval(), exam(episodes=30)
    of_query = 64 * 8 * 8 * 4 + 2 * 8
    most, encoded = {}, evaluation._Kept.encoded

    def watched(self, *inputs):
        found = encoded(self, *inputs)
        sizes = [tensor.untyped_storage().nbytes() for made in self._kept.values() for tensor in made.values()]
        most[self] = max(most.get(self, 0), sum(sizes))
        return found

    monkeypatch.setattr(evaluation._Kept, "encoded", watched)
    calls = watch(method, monkeypatch)
    found = evaluate(method, questions, batch_size=4, keep_bytes=room * of_query)
    supports, queries = most
    assert 0 < most[supports] <= room * of_query
    assert min(room, 3) * of_query <= most[queries] <= room * of_query
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
        evaluate(method, exam(), batch_size=4)
        assert bool(asked) != splits, type(method).__name__


# How many at once


@pytest.mark.parametrize("name", EPISODIC)
def test_the_score_is_the_same_whatever_is_answered_at_once(name):
    method, questions = small_method(name), exam(ways=2)
    one, four, chosen = (evaluate(method, questions, batch_size=n, keep_bytes=0) for n in (1, 4, None))
    for found in (four, chosen):
        # A pixel on the edge of a decision may fall either way when a batch is summed in another order.
        assert (found.ways - one.ways).abs().max() <= 2
        assert found.compute().miou == pytest.approx(one.compute().miou, abs=1e-3)


def test_tensors_that_live_together_are_counted_and_views_are_not():
    given = torch.ones(1000)
    with evaluation._Peak() as peak:
        first = given * 2
        second = (first.view(10, 100) + 1).T
        del first
        second.add_(1)
        third = torch.cat([second.flatten(), second.flatten()])
    # At the end the second, two copies of it on their way, and the third.
    assert peak.bytes == 4 * (1000 + 2000 + 2000)
    del second, third
    assert peak._live == 0


def test_as_many_are_answered_at_once_as_there_is_room_for(monkeypatch):
    method, questions = small_method("hsnet").train(), exam()
    assert evaluation.questions_at_once(method, questions) == 25
    with evaluation._Peak() as peak, torch.inference_mode():
        method.predict(next(iter(questions.batches(1))))
    for room, expected in ((3.5, 3), (0.5, 1), (24.5, 24), (300, 25)):
        monkeypatch.setattr(evaluation, "ROOM", int(room * peak.bytes))
        assert evaluation.questions_at_once(method, questions) == expected
    monkeypatch.setattr(evaluation, "ROOM", int(3.5 * peak.bytes))
    calls = watch(method, monkeypatch, "predict")
    evaluate(method, questions, keep_bytes=0)
    assert calls == [1, 3, 3, 3]
    assert method.training


def test_what_torch_holds_on_a_gpu_without_using_it_is_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8000, 20000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    assert evaluation._room(torch.device("cuda", 0)) == (8000 + 4000) // 4
    assert evaluation._room(torch.device("cpu")) == evaluation._room(torch.device("mps")) == evaluation.ROOM


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_method_that_cannot_answer_gets_its_mode_back(batch_size, monkeypatch):
    method = small_method("prototype").train()
    monkeypatch.setattr(method, "predict", lambda episode: 1 / 0)
    for ask in (evaluation.questions_at_once, partial(evaluate, batch_size=batch_size, keep_bytes=0)):
        with pytest.raises(ZeroDivisionError):
            ask(method, exam())
        assert method.training


def test_the_line_of_the_progress_says_how_many_and_stays(capsys):
    evaluate(small_method("prototype"), exam(), batch_size=4, progress=True)
    assert "4 at a time: 100%" in capsys.readouterr().err.rpartition("\r")[2]
    evaluate(small_method("prototype"), exam(), batch_size=4)
    assert capsys.readouterr() == ("", "")


def test_the_loss_of_held_out_images_takes_as_many_as_there_is_room_for(monkeypatch):
    streets = Streets("game", size=32)
    images, method = ImageSet(streets, streets.ids[:5]), small_method("pixda")
    expected = mean_loss(method, images, batch_size=2)
    monkeypatch.setattr(evaluation, "ROOM", 0)
    calls = watch(images.source, monkeypatch, "images")
    assert mean_loss(method, images) == pytest.approx(expected, rel=1e-5)
    assert calls == [1] * 6


def test_looking_how_many_leaves_random_numbers_alone():
    method, questions = build_method("rtd", target="random"), exam()
    torch.manual_seed(3)
    found = evaluate(method, questions, batch_size=25)
    torch.manual_seed(3)
    assert torch.equal(evaluate(method, questions).ways, found.ways)


# The protocols


@pytest.mark.parametrize("protocol", ["original", "hnset"])
def test_a_set_of_one_size_has_no_score_at_another_or_by_no_rule(protocol):
    said = {
        "original": "'original' needs label maps at their original size.* real images have",
        "hnset": "Unknown protocol",
    }
    with pytest.raises(ValueError, match=said[protocol]):
        evaluate(small_method("prototype"), exam(), protocol)


def test_images_of_a_set_are_scored_at_the_inputs_size_only():
    streets = Streets("game", size=32)
    with pytest.raises(ValueError, match="'original' is a rule for episodes; images of a set have no ways"):
        evaluate(small_method("pixda"), ImageSet(streets, streets.ids[:1]), "original")
