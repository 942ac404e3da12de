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
    lines = [f"{'domain':12} {'mIoU':>6} {'FB-IoU':>7} {'exact':>6} {'episodes':>9}"]
    for domain, score in scores.items():
        values = (100 * score[key] for key in ("miou", "fb_iou", "exact_ratio"))
        lines.append("{:12} {:6.1f} {:7.1f} {:6.1f} {:9d}".format(domain, *values, score["episodes"]))
    return "\n".join(lines)
