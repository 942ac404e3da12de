"""Widgets: controls over a line of text and a picture that is drawn anew when one of them changes."""

import io
from collections.abc import Callable, Iterable, Mapping

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


class Explorer(ipywidgets.VBox):
    """Named controls over a line of text, `message`, and a picture, `picture`, which holds a PNG.

    `draw` is given the value of each control by name, and returns the text and the figure; without a figure the picture
    stays. Setting the `value` of one of `controls` does what a reader's hand does.
    """

    def __init__(
        self,
        name: str,
        controls: Mapping[str, ipywidgets.ValueWidget],
        draw: Callable[..., tuple[str, Figure | None]],
    ):
        self.name, self.controls, self._draw, self._drawn = name, dict(controls), draw, None
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        super().__init__([ipywidgets.HBox([*self.controls.values()]), self.message, self.picture])
        for key, control in self.controls.items():
            control.description = control.description or key
            control.observe(self._show, "value")
        self._show()

    def __repr__(self) -> str:
        return f"{self.name}: run this cell in Jupyter to use it."

    def _show(self, change: dict | None = None) -> None:
        values = {key: control.value for key, control in self.controls.items()}
        # One control can move another, which draws already.
        if values == self._drawn:
            return
        self._drawn = values
        self.message.value, figure = self._draw(**values)
        if figure is not None:
            file = io.BytesIO()
            figure.savefig(file, format="png")
            plt.close(figure)
            self.picture.value = file.getvalue()


def choice(options: Iterable, description: str = "", **more) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=list(options), description=description, **more)


def slider(low: float, high: float, value: float | None = None, **options) -> ipywidgets.ValueWidget:
    """Whole numbers, or decimals where `low` is one; it tells its value when it is let go."""
    kind = ipywidgets.FloatSlider if isinstance(low, float) else ipywidgets.IntSlider
    return kind(low if value is None else value, min=low, max=high, continuous_update=False, **options)
