"""Looking at episodes by hand: choose fold, class, support, query and domain, and see what a method makes of them."""

import io
from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from fsslib.data import toyworld
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import Episode, EpisodeRow
from fsslib.methods.base import Prediction
from fsslib.teaching.plots import show_episode

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
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
        self.picture.value = file.getvalue()


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
