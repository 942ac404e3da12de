"""Widgets: controls over a line of text and a picture that is drawn anew when one of them changes."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


class Explorer(ipywidgets.VBox):
    """Named controls over a line of text, `message`, and a picture, `picture`, which holds a PNG.

    Controls are written as for `ipywidgets.interact`: (0, 99) is a slider, a list a choice; `start` has first values.
    `draw` is given the value of each by name, and returns the text and the figure; without a figure the picture stays.
    Setting the `value` of one of `controls` does what a reader's hand does.
    """

    def __init__(
        self, name: str, draw: Callable[..., tuple[str, Figure | None]], controls: Mapping[str, Any], **start: Any
    ):
        self.name, self._draw, self.controls = name, draw, {}
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        for key, written in controls.items():
            first = [start[key]] if key in start else []
            self.controls[key] = control = ipywidgets.interactive.widget_from_abbrev(written, *first)
            control.description, control.continuous_update = key.partition("_")[0], False
        super().__init__([ipywidgets.HBox([*self.controls.values()]), self.message, self.picture])
        for control in self.controls.values():
            control.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return f"{self.name}: run this cell in Jupyter to use it."

    def _show(self, change: dict | None = None) -> None:
        self.message.value, figure = self._draw(**{key: control.value for key, control in self.controls.items()})
        if figure is not None:
            file = io.BytesIO()
            figure.savefig(file, format="png")
            plt.close(figure)
            self.picture.value = file.getvalue()
