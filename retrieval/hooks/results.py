"""Hooks of results: drawing what was found for some queries, and writing it for each."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from ..distributed import gather_samples, rank, unwrapped
from ..files import write_json
from ..registry import HOOKS
from ..structures import sample_id_of
from ..visualization import Pictures, draw_ranking_grid


@HOOKS.register_module()
class RankingDrawingHook(Hook):
    """Draws a grid after testing: a query in each row, its results beside it.

    The queries are evenly spread over those of the main process.

    Args:
        out_dir: where ``rankings.png`` goes.
        number: how many queries.
        columns: how many results of each.
    """

    def __init__(self, out_dir: str, number: int = 8, columns: int = 10) -> None:
        self.out_dir = Path(out_dir)
        self.number = number
        self.columns = columns
        self._samples: list[Any] = []

    def before_test_epoch(self, runner: Any) -> None:
        """Begin anew."""
        self._samples = []

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                        outputs: Any = None) -> None:
        """Keep the queries to draw; the rest are forgotten."""
        batches = max(len(runner.test_dataloader), 1)
        step = max(batches // self.number, 1)
        if rank() == 0 and outputs and batch_idx % step == 0:
            wanted = max(self.number // batches, 1)
            spread = range(0, len(outputs), max(len(outputs) // wanted, 1))
            self._samples += [outputs[i] for i in spread][:wanted]

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Draw."""
        if rank() != 0 or not self._samples:
            return
        model = unwrapped(runner.model)
        datasets = [runner.test_dataloader.dataset, prototype_dataset(model)]
        path = self.out_dir / 'rankings.png'
        self.out_dir.mkdir(parents=True, exist_ok=True)
        rows = ranking_rows(self._samples[:self.number], model.gallery, Pictures(datasets),
                            self.columns)
        draw_ranking_grid(rows, path, columns=self.columns)
        runner.logger.info(f'Rankings of {len(rows)} queries: {path}')


def prototype_dataset(model: Any) -> Any:
    """The dataset that the gallery was encoded from, None where it was not encoded here."""
    from torch.utils.data import DataLoader

    prototype = model.prototype
    if isinstance(prototype, DataLoader):
        return prototype.dataset
    if isinstance(prototype, dict):
        from ..registry import DATASETS
        dataset = prototype['dataset']
        return DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    return None


def ranking_rows(samples: list[Any], gallery: Any, pictures: Pictures,
                 columns: int) -> list[tuple[Any, list[Any]]]:
    """The rows of :func:`draw_ranking_grid`: a query and its results for each sample."""
    rows = []
    for sample in samples:
        name = str(sample_id_of(sample))
        results = [(pictures.of(gallery.ids[row]), score, is_relevant(sample, row, gallery),
                    caption(gallery, row))
                   for row, score in zip(sample.pred_label.tolist()[:columns],
                                         sample.pred_score.tolist(), strict=False)]
        rows.append(((pictures.of(name), Path(name).name), results))
    return rows


def is_relevant(sample: Any, row: int, gallery: Any) -> bool | None:
    """True where a row of the gallery is a right result, None where it is not known."""
    indices = sample.get('gt_indices', None)
    if indices is not None:
        return row in set(indices.tolist())
    label = sample.get('gt_label', None)
    if label is None or gallery.labels is None:
        return None
    return int(gallery.labels[row]) == int(label[0])


def caption(gallery: Any, row: int) -> str:
    """A few words under a result: its class, or the name of its file."""
    return gallery.label_name(row) or Path(gallery.ids[row]).name


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
        model = unwrapped(runner.model)
        for sample in outputs or []:
            self._index.append(int(sample.get('sample_idx', len(self._index))))
            self._entries.append(_entry(sample, model.gallery))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the results of all processes, each query once."""
        index = torch.tensor(self._index, dtype=torch.int64)
        _, entries = gather_samples(index, self._entries)
        if rank() == 0:
            write_json(self.out, entries)


def _entry(sample: Any, gallery: Any) -> dict[str, Any]:
    label = sample.get('gt_label', None)
    rows = sample.pred_label.tolist()
    return dict(sample_id=sample_id_of(sample), img_path=sample.get('img_path', None),
                gt_label=None if label is None else label.tolist(), pred_label=rows,
                pred_id=[gallery.ids[row] for row in rows],
                pred_score=[round(score, 6) for score in sample.pred_score.tolist()])
