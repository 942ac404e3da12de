"""Start weights: made once, for their own split, whoever asks first. About 5 s."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fsslib.blocks.backbones import build_backbone, read_tensors
from fsslib.data.toyworld import fold_classes, split_base_classes, split_classes
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.experiment import Experiment
from fsslib.training import pretrain
from fsslib.training.recipe import Recipe


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The classes of every training, of two steps each; files go below `tmp_path`."""
    short, whole, done = Recipe.load("base_classes").with_changes(steps=2), pretrain.fit, []

    def fit(method, recipe, data, *, classes, **how):
        done.append((classes, data["source"].source.domain, torch.get_num_threads()))
        return whole(method, recipe, data, classes=classes, **how)

    load = Recipe.load
    monkeypatch.setattr(Recipe, "load", lambda name: short if name == "base_classes" else load(name))
    monkeypatch.setattr(pretrain, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(pretrain, "fit", fit)
    return done


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_split_has_weights_of_its_own_base_classes_made_once_for_all_who_wait(trained, tmp_path, capsys):
    with ThreadPoolExecutor(3) as pool:
        files = set(pool.map(lambda _: pretrain.make_weights("toy_splits", 3), range(3)))
    assert [made[:2] for made in trained] == [(split_base_classes(3), "photo")]
    assert not set(trained[0][0]) & {*split_classes(3), *fold_classes(4)}
    (file,) = files
    assert [path for path in (tmp_path / "weights").iterdir() if path.suffix != ".lock"] == [file]
    assert file.name.startswith("tiny-toy_splits-split3-")
    assert capsys.readouterr().out.count("is trained first, once for all runs that start from it") == 1


def test_what_is_made_anew_is_the_same_whatever_the_number_of_threads(trained, two_threads):
    first = read_tensors(file := pretrain.make_weights("toy_splits", 3))
    file.unlink()
    assert pretrain.main(["toy_splits", "3"]) == 0
    assert [threads for *_, threads in trained] == [1, 1]
    assert torch.get_num_threads() == 2
    assert all(torch.equal(tensor, first[name]) for name, tensor in read_tensors(file).items())


def test_a_training_that_was_stopped_leaves_nothing_that_counts(trained, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "replacing", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain.make_weights("toy_splits", 0)
    assert [path.suffix for path in (tmp_path / "weights").iterdir()] == [".lock"]


def test_the_file_is_named_by_all_that_the_weights_depend_on(trained, monkeypatch):
    names = {pretrain.weights_file("toy_splits", split).name for split in range(12)}
    names.add(pretrain.weights_file("toy_splits", 0).name)
    assert len(names) == 12
    monkeypatch.setattr(pretrain, "RULE", pretrain.RULE + 1)
    names.add(pretrain.weights_file("toy_splits", 0).name)
    longer = Recipe.load("base_classes").with_changes(steps=3)
    monkeypatch.setattr(Recipe, "load", lambda _: longer)
    names.add(pretrain.weights_file("toy_splits", 0).name)
    assert len(names) == 14


def test_a_run_makes_the_weights_that_are_missing_and_its_record_tells_them(trained):
    config = RunConfig(method="prototype", data="toy_splits", fold=7, device="cpu")
    record = Experiment(config).method.backbone.weights
    assert [classes for classes, *_ in trained] == [split_base_classes(7)]
    file = pretrain.weights_file("toy_splits", 7)
    assert (config.start_weights, config.made_weights) == (str(file), file)
    assert record.source == file.name
    assert record.sha256 == build_backbone("tiny", weights=file).weights.sha256
    shipped = Experiment(RunConfig(method="prototype", fold=2, device="cpu")).method.backbone.weights
    assert shipped.sha256 != record.sha256
    assert shipped.source == "tiny-toy-fold2.pt"
    assert pretrain.make_weights("toy", 2).name == "tiny-toy-fold2.pt"
    random = Experiment(config.model_copy(update={"weights": "none", "fold": 8})).method
    assert (random.backbone.weights.source, len(trained)) == ("none", 1)
