"""Encoders under the protocols of the benchmarks whose data is there: results with intervals."""
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checks import unknown_name

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and where its data is looked for.

    Args:
        name: that of its protocol.
        folders: names that its folder may have below the data root; none where it needs no data.
        queries: the config of the dataset of the queries, but for its ``data_root``.
        gallery: that of the gallery; None where the queries are searched among each other.
        within: the folders are named by the dataset itself, which is given the data root.
    """

    name: str
    folders: tuple[str, ...]
    queries: Mapping[str, Any]
    gallery: Mapping[str, Any] | None = None
    within: bool = False

    def root(self, data_root: str | os.PathLike[str]) -> Path | None:
        """The ``data_root`` of its datasets, None where there is none."""
        found = next((Path(data_root, name) for name in self.folders
                      if Path(data_root, name).is_dir()), None)
        return Path(data_root) if found is not None and self.within else found

    def sides(self, root: Path | None) -> list[dict[str, Any]]:
        """The configs of its datasets: of the queries, and of the gallery where there is one."""
        given: dict[str, Any] = {} if root is None else dict(data_root=str(root))
        if root is not None and self.queries['type'] == 'retrieval.CSVDataset':
            given['ann_file'] = str(root / 'copies.csv')
        return [dict(side, **given) for side in (self.queries, self.gallery) if side is not None]


def _leave_one_out(name: str, *folders: str) -> Benchmark:
    return Benchmark(name, folders, dict(type=f'retrieval.{name}', split='test'))


def _searched(name: str, *folders: str, kind: str = '', within: bool = False) -> Benchmark:
    kind = f'retrieval.{kind or name}'
    return Benchmark(name, folders, dict(type=kind, split='query'),
                     dict(type=kind, split='gallery'), within)


#: Those that are run, in the order of the table.
BENCHMARKS: dict[str, Benchmark] = {one.name: one for one in (
    _leave_one_out('Glyphs'),
    _leave_one_out('Objects', 'objects'),
    _searched('Copies', 'copies', kind='CSVDataset'),
    _leave_one_out('CUB200', 'cub200', 'CUB_200_2011'),
    _leave_one_out('Cars196', 'cars196'),
    _leave_one_out('StanfordOnlineProducts', 'stanford_online_products',
                   'Stanford_Online_Products'),
    _searched('InShop', 'inshop'),
    _leave_one_out('INaturalist2018', 'inaturalist2018'),
    _searched('Market1501', 'Market-1501-v15.09.15', 'market1501'),
    _searched('VeRi776', 'VeRi', 'veri776'),
    _searched('RevisitedOxford', 'roxford5k', within=True),
    _searched('RevisitedParis', 'rparis6k', within=True),
    _searched('GoogleLandmarksV2', 'google_landmarks_v2'))}


def benchmarks_there(data_root: str | os.PathLike[str],
                     names: Sequence[str] | None = None) -> list[tuple[Benchmark, Path | None]]:
    """The benchmarks whose data is below a folder, each with the ``data_root`` of its datasets.

    Args:
        data_root: the folder.
        names: only these; None for all that are there.

    Raises:
        FileNotFoundError: there is no such folder, or one of ``names`` is not in it.
        ValueError: a name is no benchmark's.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / 'objects').mkdir()
        ...     [benchmark.name for benchmark, _ in benchmarks_there(folder)]
        ['Glyphs', 'Objects']
    """
    if not os.path.isdir(data_root):
        raise FileNotFoundError(f'There is no folder {os.fspath(data_root)!r} with the folders of '
                                'benchmarks.')
    for name in names or ():
        if name not in BENCHMARKS:
            raise ValueError(unknown_name('benchmark', name, BENCHMARKS))
    found = []
    for one in BENCHMARKS.values():
        if names is not None and one.name not in names:
            continue
        root = one.root(data_root)
        if root is None and one.folders:
            if names is not None:
                raise FileNotFoundError(f'In {os.fspath(data_root)!r} is no folder '
                                        f'{" or ".join(one.folders)}, which {one.name} is read '
                                        'from.')
            continue
        found.append((one, root))
    return found


@dataclass
class Entry:
    """The results of an encoder under a protocol.

    Args:
        encoder, benchmark: their names.
        metrics: percent by name.
        confidence: ``(low, high)`` in percent by name; of those metrics that queries have.
        queries, rows: how many there are.
        width: of the embeddings.
        fingerprint: of the model and its pipeline.
    """

    encoder: str
    benchmark: str
    metrics: dict[str, float]
    confidence: dict[str, tuple[float, float]]
    queries: int
    rows: int
    width: int
    fingerprint: dict[str, Any] = field(default_factory=dict)

    def text(self, metric: str) -> str:
        """A result with its interval."""
        value = f'{self.metrics[metric]:.2f}'
        if metric not in self.confidence:
            return value
        low, high = self.confidence[metric]
        return f'{value} ({low:.1f}–{high:.1f})'


def measure(model: Any, name: str, benchmark: Benchmark, root: Path | None,
            pipeline: Sequence[dict[str, Any]], kept: Path, num_workers: int = 0) -> Entry:
    """Encode a benchmark, going on with what is kept, and evaluate it by its protocol.

    Args:
        model: a retriever.
        name: of its encoder.
        benchmark: one of :data:`BENCHMARKS`.
        root: the ``data_root`` of its datasets.
        pipeline: the test pipeline.
        kept: a folder for the embeddings.
        num_workers: processes that read images.

    Raises:
        FileNotFoundError, ValueError: the data is not whole.
    """
    from ..evaluation import PROTOCOLS
    from ..evaluation.evaluate import rank_queries
    from ..evaluation.results import with_levels
    from ..registry import DATASETS

    protocol = PROTOCOLS[benchmark.name]
    datasets = [DATASETS.build(dict(side, pipeline=list(pipeline)))
                for side in benchmark.sides(root)]
    sets = [_encoded(model, dataset, kept / f'{benchmark.name}-{side}.safetensors', num_workers,
                     f'{name} on {benchmark.name}')
            for dataset, side in zip(datasets, ('queries', 'gallery'), strict=False)]
    tasks = protocol.tasks(sets[0], sets[1] if len(sets) > 1 else None,
                           _ground_truth(datasets[0], protocol))
    results = {level: rank_queries(task, protocol.metrics) for level, task in tasks.items()}
    metrics = with_levels({level: one.summary(protocol.average)
                           for level, one in results.items()})
    bounds = with_levels({level: one.confidence(LEVEL, average=protocol.average)
                          for level, one in results.items()})
    return Entry(name, benchmark.name, {metric: metrics[metric] for metric in bounds},
                 dict(bounds), len(datasets[0]), len(datasets[-1]),
                 int(sets[0].embeddings.shape[1]),
                 model.fingerprint(datasets[0]).as_dict())


def _encoded(model: Any, dataset: Any, path: Path, num_workers: int, title: str) -> Any:
    """The embeddings of a dataset with its labels, ids and columns."""
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    from ..evaluation import EmbeddingSet
    from ..retrievers import cached_gallery

    loader: Any = DataLoader(dataset, batch_size=32, num_workers=num_workers,
                             collate_fn=pseudo_collate)
    gallery, _ = cached_gallery(model, loader, path, progress=title)
    return EmbeddingSet(gallery.embeddings, gallery.labels, gallery.ids, gallery.metadata)


def _ground_truth(dataset: Any, protocol: Any) -> dict[str, list[Any]] | None:
    """The rows that a dataset names for each query, by field."""
    fields = {'gt_indices', *protocol.sample_fields} - set(protocol.exclude_same)
    first = dataset.get_data_info(0)
    given = [name for name in sorted(fields) if name in first]
    if not given:
        return None
    infos = [dataset.get_data_info(row) for row in range(len(dataset))]
    return {name: [info[name] for info in infos] for name in given}


# What is kept ------------------------------------------------------------------------------------

def write_entry(entry: Entry, path: str | os.PathLike[str]) -> None:
    """Write an entry as JSON."""
    from dataclasses import asdict

    from ..files import write_json

    write_json(path, asdict(entry))


def read_entry(path: str | os.PathLike[str]) -> Entry | None:
    """The entry in a file; None where there is none that can be read.

    Example:
        >>> read_entry('nowhere.json') is None
        True
    """
    try:
        held = json.loads(Path(path).read_text(encoding='utf-8'))
        held['confidence'] = {name: (float(low), float(high))
                              for name, (low, high) in held['confidence'].items()}
        return Entry(**held)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def leaderboard_table(entries: Iterable[Entry]) -> str:
    """The entries as Markdown: a table a benchmark, by its first metric, the best first.

    Example:
        >>> one = Entry('resnet50', 'Objects', {'mAP': 50.}, {'mAP': (49., 51.)}, 9, 9, 2048)
        >>> print(leaderboard_table([one]).splitlines()[-1])
        | resnet50 | 2048 | 50.00 (49.0–51.0) |
    """
    parts = []
    every = list(entries)
    for name in BENCHMARKS:
        own = [entry for entry in every if entry.benchmark == name]
        if not own:
            continue
        columns = list(own[0].metrics)
        own.sort(key=lambda entry: -entry.metrics[columns[0]])
        lines = [f'## {name}', '', f'{own[0].queries:,} queries against {own[0].rows:,} pictures.',
                 '', f'| encoder | numbers | {" | ".join(columns)} |',
                 '|---' * (len(columns) + 2) + '|']
        lines += [f'| {entry.encoder} | {entry.width} | '
                  f'{" | ".join(map(entry.text, columns))} |' for entry in own]
        parts.append('\n'.join(lines))
    return '\n\n'.join(parts)
