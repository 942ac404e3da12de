"""Reading `result.json`, the record of a run; `record.py` writes it. Light: nothing here imports torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsslib.reproduction.config import RunConfig

FILE = "result.json"
SCHEMA_VERSION = 1


def read_result(path: Path | str) -> dict[str, Any]:
    """A result file's content. Raises ValueError when it is damaged or of another schema version."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {version!r}; this fsslib reads {SCHEMA_VERSION}")
    return content


def config_of(path: Path | str) -> RunConfig:
    """The parameters a result file was made with, all but `output`. Raises ValueError as `read_result`."""
    return RunConfig(**read_result(path)["config"])


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The `scores` of a result as text, one line a domain, in percent."""
    lines = []
    for domain, score in scores.items():
        columns = {title: key for title, key in _COLUMNS.items() if key in score}
        counts = {title: key for title, key in _COUNTS.items() if key in score}
        if not lines:
            lines.append(f"{'domain':14}" + "".join(f"{title:>10}" for title in (*columns, *counts)))
        values = [f"{100 * score[key]:10.1f}" for key in columns.values()]
        lines.append(f"{domain:14}" + "".join(values) + "".join(f"{score[key]:10d}" for key in counts.values()))
    return "\n".join(lines)


_COLUMNS = {"mIoU": "miou", "FB-IoU": "fb_iou", "exact": "exact_ratio", "accuracy": "pixel_accuracy"}
_COUNTS = {"episodes": "episodes", "images": "images"}
