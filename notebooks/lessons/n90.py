"""Notebook 90: the answers of what was trained."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import fsslib as fss
from fsslib.data.streams import ImageSet
from fsslib.teaching.plots import DPI, INK, label_picture, overlay, plain


def show_answers(
    method: fss.Method, exams: Mapping[str, fss.EpisodeSet | ImageSet], *, count: int = 3, side: float | None = None
) -> Figure:
    """What a method says to the first `count` questions of each exam, a row each.

    For episodes support, truth and prediction; for images with a fixed class list image, truth and prediction.
    """
    rows, device, was_training = {}, next(method.parameters()).device, method.training
    method.eval()
    for domain, exam in exams.items():
        batch = next(exam.batches(count)).to(device)
        rows[domain] = _panels(exam, batch, method.predict(batch).labels)
    method.train(was_training)
    height = side or (0.85 if any(isinstance(exam, ImageSet) for exam in exams.values()) else 1.2)
    columns, (_, first) = max(map(len, rows.values())), next(iter(rows.values()))[0]
    size = (height * first.shape[1] / first.shape[0] * columns + 0.4, (height + 0.05) * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, dpi=DPI, layout="compressed", squeeze=False)
    for number, ((domain, row), line) in enumerate(zip(rows.items(), axes)):
        for ax, (title, picture) in zip(line, row):
            plain(ax).imshow(picture, interpolation="nearest")
            if number == 0:
                ax.set_title(title, fontsize=9, color=INK, pad=4)
        for ax in line[len(row) :]:
            ax.set_axis_off()
        line[0].set_ylabel(domain, fontsize=9, color=INK)
    return figure


def _panels(exam, batch, says) -> list:
    if isinstance(exam, ImageSet):
        shown = [("image", image.movedim(0, 2).cpu().numpy()) for image in batch.images]
        maps = [[label_picture(labels, exam.source.class_names) for labels in part] for part in (batch.labels, says)]
    else:
        shown = [
            ("support", overlay(*pair)) for pair in zip(batch.support_images[:, 0, 0], batch.support_masks[:, 0, 0])
        ]
        maps = [[overlay(*pair) for pair in zip(batch.query_images, part)] for part in (batch.query_labels, says)]
    return [panel for first, *two in zip(shown, *maps) for panel in (first, *zip(("truth", "prediction"), two))]
