"""The rules of scoring by name. No torch in here: what there is can be said at once."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Protocol:
    """How a score was taken; a number without its protocol's name cannot be compared. Void is counted in none of them.

    - `labels_at`: where prediction and truth meet, "input" (labels brought to the network's input) or "original"
      (scores brought to the image's own size, bilinear, before the decision).
    - `fit`: how images and labels come to the input's size. "square": squashed, each label that of its cell's centre
      ("nearest-exact"); "corner": squashed, that of its cell's upper left ("nearest"); "padded": as
      `decode.fitted` says.
    - `on_top`: which of two overlapping objects of COCO is the truth, the "smaller" or the "later" one of the JSON.
    - `absent`: a way that is not in its query has no TP and no FN. What is predicted for it counts against its class
      ("false_positives"), or not at all ("dropped").
    - `episodes`: whose rule of drawing them, "own", "hsnet" or "pfenet".
    - `rule`: its number, another whenever the same name comes to stand for another truth or other questions.
    """

    name: str
    description: str
    labels_at: str = "input"
    fit: str = "square"
    on_top: str = "smaller"
    absent: str = "false_positives"
    episodes: str = "own"
    rule: int = 1

    @property
    def of_episodes(self) -> bool:
        """Whether it says what only episodes of real images can do; images with a fixed list of classes cannot."""
        return replace(self, name="", description="") != Protocol("", "")


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("toy", "toy world: labels are drawn at the input's size"),
        Protocol("square", "images squashed to a square, labels resized to it (nearest), supports distinct"),
        Protocol("original", "scores brought back to each query's own size; supports distinct", labels_at="original"),
        Protocol(
            "hsnet",
            "HSNet's episodes, whose supports may repeat, and its truth: labels of a cell's corner",
            fit="corner",
            on_top="later",
            episodes="hsnet",
            rule=2,
        ),
        Protocol("panet", "as square, but what is said of a way that its query lacks is left out", absent="dropped"),
        Protocol(
            "pfenet",
            "PFENet's episodes, aspect kept, scores brought back to each query's own size",
            labels_at="original",
            fit="padded",
            on_top="later",
            episodes="pfenet",
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of this name; ValueError lists the names there are."""
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {name!r}; there are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
