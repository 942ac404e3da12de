"""Draws docs/toyworld.png, the picture in README: `python docs/toyworld.py`."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import fsslib as fss
from fsslib.data.toyworld import SOURCE_DOMAIN, TARGET_DOMAINS, base_classes, fold_classes

DOMAINS = (SOURCE_DOMAIN, *TARGET_DOMAINS)


def main() -> None:
    classes = fold_classes(0)[:3]
    worlds = [fss.ToyWorld(domain, size=128, distractors=base_classes(0)) for domain in DOMAINS]
    rows = worlds[0].sample(classes, len(classes), seed="readme")
    episodes = [world.episode(rows) for world in worlds]

    size = {"figsize": (1.5 * (1 + len(DOMAINS)), 1.5 * len(rows) + 0.2), "dpi": 110}
    figure, axes = plt.subplots(len(rows), 1 + len(DOMAINS), layout="compressed", **size)
    for k in range(len(rows)):
        support = episodes[0].support_images[k, 0, 0], episodes[0].support_masks[k, 0, 0]
        fss.plots.draw_image(axes[k, 0], *support)
        for ax, episode in zip(axes[k, 1:], episodes, strict=True):
            fss.plots.draw_image(ax, episode.query_images[k])
            ax.contour(episode.query_labels[k], levels=[0.5], colors=["crimson"], linewidths=1.4)
    for ax, title in zip(axes[0], ["seen once: support", *(f"find it: {domain}" for domain in DOMAINS)], strict=True):
        ax.set_title(title, fontsize=8)

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(200).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
