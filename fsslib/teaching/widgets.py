"""Widgets to look around: episodes of the toy world and what a method makes of them, features in another style, and how
much a class of a street counts."""

import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from fsslib.blocks.adversarial import class_balance_map
from fsslib.blocks.memory import MetaMemory, feature_statistics
from fsslib.data import toyworld
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import VOID, Episode, EpisodeRow, LabelledImages
from fsslib.methods.base import Prediction
from fsslib.teaching.plots import show_class_weights, show_episode, show_images
from fsslib.teaching.street_plots import show_rungs

LARGEST_NUMBER = 99


class EpisodeExplorer(ipywidgets.VBox):
    """Controls over a picture of one 1-way 1-shot episode of the toy world; made by `episode_explorer`.

    `fold`, `class_id`, `support`, `query` and `domain` are the controls, `picture` holds the PNG, `message` a line
    of text. Setting a control's `value` does what a reader's hand does. `episode` is the one on show.
    """

    def __init__(
        self,
        predict: Callable[[Episode], Prediction] | None,
        similarity: Callable[[Episode], Tensor] | None,
        limits: tuple[float, float],
        fold: int,
        size: int,
    ):
        self._predict, self._similarity, self._limits, self._size = predict, similarity, limits, size
        self.episode: Episode | None = None
        folds = [(f"fold {f}", f) for f in toyworld.TEST_FOLDS]
        folds.append((f"fold {toyworld.DEVELOPMENT_FOLD}, development", toyworld.DEVELOPMENT_FOLD))
        self.fold = ipywidgets.Dropdown(options=folds, value=fold, description="test fold")
        self.class_id = ipywidgets.Dropdown(options=_choices(fold), description="class")
        self.domain = ipywidgets.Dropdown(options=list(toyworld.DOMAINS), description="domain")
        self.support = ipywidgets.IntSlider(1, 0, LARGEST_NUMBER, description="support", continuous_update=False)
        self.query = ipywidgets.IntSlider(2, 0, LARGEST_NUMBER, description="query", continuous_update=False)
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        choice = ipywidgets.HBox([self.fold, self.class_id, self.domain])
        numbers = ipywidgets.HBox([self.support, self.query])
        super().__init__([choice, numbers, self.message, self.picture])

        self.fold.observe(self._choose_fold, "value")
        for control in (self.class_id, self.domain, self.support, self.query):
            control.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return "Episode explorer: run this cell in Jupyter to use it."

    def _choose_fold(self, change: dict) -> None:
        # New options select the first class of the fold, which redraws through the class's own callback.
        self.class_id.options = _choices(change["new"])

    def _show(self, change: dict | None = None) -> None:
        class_id, domain = self.class_id.value, self.domain.value
        support, query = (f"c{class_id}-{control.value:06d}" for control in (self.support, self.query))
        if support == query:
            self.message.value = (
                "Support and query are one picture: copying the mask would be perfect. Move one of them."
            )
            return
        world = ToyWorld(domain, size=self._size, distractors=toyworld.base_classes(self.fold.value))
        self.episode = world.episode([EpisodeRow(query, (class_id,), ((support,),))])
        with torch.no_grad():
            prediction = None if self._predict is None else self._predict(self.episode).labels
            scores = None if self._similarity is None else self._similarity(self.episode)
        self.message.value = _in_words(self.episode, prediction)
        figure = show_episode(self.episode, prediction=prediction, scores=scores, limits=self._limits)
        self.picture.value = _png(figure)


def episode_explorer(
    predict: Callable[[Episode], Prediction] | None = None,
    *,
    similarity: Callable[[Episode], Tensor] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    fold: int = 0,
    size: int = 64,
) -> EpisodeExplorer:
    """A widget to walk through the toy world, one 1-way 1-shot episode at a time.

    `predict` makes a `Prediction` of an episode, as `method.eval().predict` does. `similarity` makes a score map
    [1, h, w] of it, drawn with the colours of `limits`. Without them the widget shows support, query and truth. A scene
    keeps its number in every domain, and holds distractors of the chosen fold's training classes only.
    """
    return EpisodeExplorer(predict, similarity, limits, fold, size)


class StyleMixer(ipywidgets.VBox):
    """Controls over three pictures: features in their own style, in the mix, and in an item's; made by `style_mixer`.

    `scene`, `item` and `alpha` are the controls, `picture` holds the PNG, `message` names the items that the memory
    would select. Setting a control's `value` does what a reader's hand does. `mixed` are the features on show.
    """

    def __init__(self, scenes: Mapping[str, Tensor], memory: MetaMemory, seen: Callable[[Tensor], Tensor]):
        if memory.filled < 1:
            raise ValueError("The memory is empty: store the statistics of some images first.")
        self._scenes, self._memory, self._seen = dict(scenes), memory, seen
        self.mixed: Tensor | None = None
        self.scene = ipywidgets.Dropdown(options=list(self._scenes), description="scene")
        self.item = ipywidgets.IntSlider(0, 0, int(memory.filled) - 1, description="item", continuous_update=False)
        self.alpha = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="alpha", continuous_update=False)
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        super().__init__([ipywidgets.HBox([self.scene, self.item, self.alpha]), self.message, self.picture])
        for control in (self.scene, self.item, self.alpha):
            control.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return "Style mixer: run this cell in Jupyter to use it."

    @torch.no_grad()
    def _show(self, change: dict | None = None) -> None:
        features, item, alpha = self._scenes[self.scene.value], self.item.value, self.alpha.value
        statistics = feature_statistics(features)
        highest, lowest = (int(self._memory.select(*statistics, rule)[0, 0]) for rule in ("highest", "lowest"))
        self.message.value = f"Most like this scene: item {highest}; least: item {lowest}."
        index = torch.tensor([[item, item]], device=features.device)
        self.mixed = self._memory.enhance(features, index, alpha)
        shown = torch.cat([features, self.mixed, self._memory.enhance(features, index, 0.0)])
        titles = ["its own style", f"alpha {alpha:.2f}", f"item {item}"]
        self.picture.value = _png(show_images(self._seen(shown), titles=titles, side=2.2))


def style_mixer(
    scenes: Mapping[str, Tensor], memory: MetaMemory, seen: Callable[[Tensor], Tensor] = lambda features: features
) -> StyleMixer:
    """A widget that gives the features [1, C, h, w] of named scenes the style of an item of a memory, in any share.

    `seen` turns features [B, C, h, w] into pictures [B, 3, H, W]; without it features must have three channels. Raises
    ValueError for a memory in which nothing was stored.
    """
    return StyleMixer(scenes, memory, seen)


class ClassWeights(ipywidgets.VBox):
    """Controls over three pictures: a street, its balance map B and its difficulty map S; made by `class_weights`.

    `scene` and `class_name` are the controls, `picture` holds the PNG, in which the class stands out, `message` its
    numbers. Setting a control's `value` does what a reader's hand does.
    """

    def __init__(self, batch: LabelledImages, difficulty: Tensor, class_names: Mapping[int, str]):
        if difficulty.shape != batch.labels.shape:
            raise ValueError(
                f"The difficulty map has the shape {tuple(difficulty.shape)}, the labels {tuple(batch.labels.shape)}: "
                "one number is needed for each pixel."
            )
        self._batch, self._difficulty, self._names = batch, difficulty.detach(), dict(class_names)
        self._balance = class_balance_map(batch.labels, len(self._names))
        self.scene = ipywidgets.IntSlider(0, 0, len(batch) - 1, description="scene", continuous_update=False)
        self.class_name = ipywidgets.Dropdown(options=list(self._names.values()), description="class")
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        super().__init__([ipywidgets.HBox([self.class_name, self.scene]), self.message, self.picture])
        for control in (self.scene, self.class_name):
            control.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return "Class weights: run this cell in Jupyter to use it."

    def _show(self, change: dict | None = None) -> None:
        n, name = self.scene.value, self.class_name.value
        labels, balance, difficulty = self._batch.labels[n], self._balance[n], self._difficulty[n]
        marked, valid = labels == list(self._names.values()).index(name), labels != VOID
        if marked.any():
            share = 100 * marked.sum() / valid.sum()
            others = difficulty[valid & ~marked]
            beside = f", {others.mean():.2f} on all others" if len(others) else ""
            self.message.value = (
                f"{name}: {share:.2f} % of the labelled pixels, B = {balance[marked][0]:.3f}; "
                f"S = {difficulty[marked].mean():.2f} on average{beside}."
            )
        else:
            self.message.value = f"There is no {name} in this scene."
        self.picture.value = _png(show_class_weights(self._batch.images[n], marked, balance, difficulty))


def class_weights(
    batch: LabelledImages, difficulty: Float[Tensor, "B H W"], class_names: Mapping[int, str]
) -> ClassWeights:
    """A widget that picks a class in one of several scenes and shows its share, its balance B and its difficulty S.

    `difficulty` is `pixel_difficulty_map` of a segmenter's logits; B follows from the labels. Raises ValueError when
    the map does not have a number for each pixel.
    """
    return ClassWeights(batch, difficulty, class_names)


class ClassLadder(ipywidgets.VBox):
    """A control over a picture: a class's IoU on every rung of a ladder; made by `class_ladder`.

    `class_name` is the control, `picture` holds the PNG, `message` the class's share, its balance and the means.
    Setting the control's `value` does what a reader's hand does.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        balance: Mapping[str, float],
        ladder: Mapping[str, Mapping[str, Sequence[float]]],
    ):
        if not set(shares) == set(balance) == set(ladder):
            odd = sorted(set(shares) ^ set(balance) | set(shares) ^ set(ladder))
            raise ValueError(f"Shares, balance and ladder must know the same classes; these are not in all: {odd}.")
        self._shares, self._balance, self._ladder = dict(shares), dict(balance), dict(ladder)
        self.class_name = ipywidgets.Dropdown(options=sorted(shares, key=shares.get), description="class")
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        super().__init__([self.class_name, self.message, self.picture])
        self.class_name.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return "Class ladder: run this cell in Jupyter to use it."

    def _show(self, change: dict | None = None) -> None:
        name = self.class_name.value
        rungs = self._ladder[name]
        means = [f"{rung} {sum(ious) / len(ious):.1f}" for rung, ious in rungs.items() if ious]
        self.message.value = (
            f"{name}: {100 * self._shares[name]:.2f} % of the pixels, B = {self._balance[name]:.3f} on average. "
            f"IoU: {', '.join(means) or 'not run yet'}."
        )
        self.picture.value = _png(show_rungs(rungs, title=f"IoU of {name}, %"))


def class_ladder(
    shares: Mapping[str, float], balance: Mapping[str, float], ladder: Mapping[str, Mapping[str, Sequence[float]]]
) -> ClassLadder:
    """A widget that picks a class and shows its share, its mean balance B, and its IoU on the rungs of a ladder.

    Shares are from 0 to 1; `ladder[class][rung]` has the IoU of each run in per cent, none for a rung that was not run.
    Raises ValueError when the three do not know the same classes.
    """
    return ClassLadder(shares, balance, ladder)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def _choices(fold: int) -> list[tuple[str, int]]:
    return [(toyworld.CLASS_NAMES[c], c) for c in toyworld.fold_classes(fold)]


def _in_words(episode: Episode, prediction: Tensor | None) -> str:
    share = (episode.query_labels == 1).double().mean().item()
    words = f"The class covers {100 * share:.1f} % of the query."
    if prediction is None:
        return words
    says, is_ = prediction == 1, episode.query_labels == 1
    iou = (says & is_).sum().item() / max((says | is_).sum().item(), 1)
    return f"{words} IoU of the prediction in this one picture: {iou:.3f}."
