"""The hook that writes what was found for each query."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from ..distributed import gather_samples, rank
from ..gallery import write_text
from ..registry import HOOKS
from ..structures import sample_id_of


@HOOKS.register_module()
class RecordPredictionsHook(Hook):
    """Writes a JSON list with an entry for each query, in the order of the dataset.

    An entry holds ``sample_id``, ``img_path``, ``gt_label``, and aligned and best first
    ``pred_label`` (rows of the gallery), ``pred_id`` and ``pred_score``.

    Args:
        out: the file to write.
    """

    def __init__(self, out: str) -> None:
        self.out = Path(out)
        self._index: list[int] = []
        self._entries: list[dict[str, Any]] = []

    def before_test_epoch(self, runner: Any) -> None:
        """Begin anew."""
        self._index, self._entries = [], []

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                        outputs: Any = None) -> None:
        """Keep a batch's results."""
        model = getattr(runner.model, 'module', runner.model)
        for sample in outputs or []:
            self._index.append(int(sample.get('sample_idx', len(self._index))))
            self._entries.append(_entry(sample, model.gallery))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the results of all processes, each query once."""
        index = torch.tensor(self._index, dtype=torch.int64)
        _, entries = gather_samples(index, self._entries)
        if rank() == 0:
            text = json.dumps(entries, indent=1)
            write_text(self.out, text + '\n')


def _entry(sample: Any, gallery: Any) -> dict[str, Any]:
    label = sample.get('gt_label', None)
    rows = sample.pred_label.tolist()
    return dict(sample_id=sample_id_of(sample), img_path=sample.get('img_path', None),
                gt_label=None if label is None else label.tolist(), pred_label=rows,
                pred_id=[gallery.ids[row] for row in rows],
                pred_score=[round(score, 6) for score in sample.pred_score.tolist()])
