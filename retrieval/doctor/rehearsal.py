"""A rehearsal of a config: everything is built, and one batch goes through each part of it."""
from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .finding import Finding, gather

_MOST_FILES = 20_000  # whose contents are compared
_FEW_POSITIVES = 0.5  # a share of a batch's images below which most of it teaches nothing


def examine_config(path: str | os.PathLike[str], options: dict[str, Any] | None = None
                   ) -> Iterator[Finding]:
    """Read a config, build what it describes, and send a batch through each part of it.

    Nothing of it is kept: the work dir is a temporary folder.

    Args:
        path: of the config, or the name of a shipped one.
        options: settings that override it, as ``--cfg-options`` gives them.

    Example:
        >>> [one.level for one in examine_config('no/such/config.py')]
        ['error']
    """
    with tempfile.TemporaryDirectory(prefix='retrieval-doctor-') as folder:
        found: list[Rehearsal] = []

        def build() -> Iterator[Finding]:
            found.append(Rehearsal(path, options, folder))
            parameters = sum(one.numel() for one in found[0].model.parameters())
            yield Finding('config', 'ok', f'{os.fspath(path)} is read, and its model built: '
                          f'{parameters / 1e6:.1f} million parameters')

        yield from gather([('config', build)])
        if found:
            yield from gather([(name, getattr(found[0], name)) for name in (
                'training', 'positives', 'gallery', 'queries', 'index', 'classes', 'pictures',
                'relevant', 'protocol', 'estimate')])
            found[0].close()


class Rehearsal:
    """A config with its model, its datasets, and what a batch of each took.

    Args:
        path: of the config.
        options: settings that override it.
        folder: its work dir.
    """

    def __init__(self, path: str | os.PathLike[str], options: dict[str, Any] | None,
                 folder: str) -> None:
        from ..distributed import unwrapped
        from ..runs.config import build_runner, load_config

        self.config = load_config(path, options, folder)
        self.config.log_level = 'ERROR'
        self.config.experiment_name = os.path.basename(folder)  # the engine keeps one of each name
        self.config.visualizer = self.config.vis_backends = None
        self.config.resume, self.config.load_from = False, self.config.get('load_from')
        self.runner = build_runner(self.config, 'none')
        self.model = unwrapped(self.runner.model)
        self.model.init_weights()
        self.seconds: dict[str, float] = {}  # that a batch of each took, reading and computing
        self.sizes: dict[str, int] = {}
        self.batch: Any = None
        self.width = 0

    def close(self) -> None:
        """Let the files of the work dir go."""
        for handler in list(self.runner.logger.handlers):
            handler.close()
            self.runner.logger.removeHandler(handler)

    @cached_property
    def loaders(self) -> dict[str, Any]:
        """The dataloaders that the config has, by ``train``, ``query`` and ``gallery``."""
        from ..retrievers import configured_prototype

        given = {'train': self.config.get('train_dataloader'),
                 'query': self.config.get('test_dataloader') or self.config.get('val_dataloader'),
                 'gallery': configured_prototype(self.config)}
        return {name: self.runner.build_dataloader(
                    dict(one, num_workers=0, persistent_workers=False), seed=0)
                for name, one in given.items() if isinstance(one, Mapping) and 'dataset' in one}

    def _batch(self, name: str) -> Any:
        """One batch of a dataloader; how long it took to read is kept."""
        start = time.perf_counter()
        batch = next(iter(self.loaders[name]))
        self.seconds[f'{name} read'] = time.perf_counter() - start
        self.sizes[name] = len(batch['data_samples'] if 'data_samples' in batch
                               else batch['inputs'])
        return batch

    # One batch of each ---------------------------------------------------------------------------

    def training(self) -> Iterator[Finding]:
        """Read a batch and take a step with it."""
        from ..hooks import CheckHeadHook

        if 'train' not in self.loaders:
            yield Finding('training', 'ok', 'the config does not train')
            return
        CheckHeadHook().before_train(SimpleNamespace(
            model=self.model, train_loop=SimpleNamespace(dataloader=self.loaders['train'])))
        self.batch = self._batch('train')
        if not self.config.get('optim_wrapper'):
            yield Finding('training', 'error', 'there is no optim_wrapper', 'inherit a schedule')
            return
        wrapper = self.runner.build_optim_wrapper(self.runner.optim_wrapper)
        self.model.train()
        start = time.perf_counter()
        scalars = self.model.train_step(self.batch, optim_wrapper=wrapper)
        self.seconds['train step'] = time.perf_counter() - start
        values = {name: value.item() for name, value in scalars.items()}
        text = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
        finite = all(np.isfinite(value) for value in values.values())
        yield Finding('training', 'ok' if finite else 'error',
                      f'a batch of {self.sizes["train"]} trains: {text}',
                      '' if finite else 'lower the learning rate, and see that the pictures are '
                      'normalised')

    def positives(self) -> Iterator[Finding]:
        """How many images of a batch have another one of their class in it."""
        samples = self.batch['data_samples'] if self.batch is not None else []
        labels = [int(sample.gt_label[0]) for sample in samples
                  if sample is not None and 'gt_label' in sample]
        if not labels:
            return
        classifies = isinstance(getattr(getattr(self.model, 'head', None), 'num_classes', None),
                                int)
        yield judge_positives(labels, classifies)

    def gallery(self) -> Iterator[Finding]:
        """Encode a batch of the gallery."""
        yield from self._encoded('gallery')

    def queries(self) -> Iterator[Finding]:
        """Encode a batch of the queries."""
        yield from self._encoded('query')

    def _encoded(self, name: str) -> Iterator[Finding]:
        from ..retrievers import evaluation_mode

        title = {'query': 'queries'}.get(name, name)
        if name not in self.loaders:
            yield Finding(title, 'warning', 'the config has none, so nothing is evaluated',
                          'set test_dataloader, and gallery_dataloader for what is searched')
            return
        batch = self._batch(name)
        with evaluation_mode(self.model), torch.no_grad():
            start = time.perf_counter()
            data = self.model.data_preprocessor(batch, False)
            vectors = self.model(data['inputs'], mode='tensor')
            vectors = vectors[-1] if isinstance(vectors, (tuple, list)) else vectors
            self.seconds[f'{name} encode'] = time.perf_counter() - start
        self.width = vectors.shape[1]
        text = f'{len(self.loaders[name].dataset)} images; a batch of {self.sizes[name]} becomes ' \
            f'{tuple(vectors.shape)}'
        if not torch.isfinite(vectors).all():
            yield Finding(title, 'error', f'{text} with NaN or infinity', 'check the weights, and '
                          'the mean and std of data_preprocessor')
        elif len(vectors) > 1 and torch.allclose(vectors, vectors[:1], rtol=1e-3, atol=1e-5):
            yield Finding(title, 'error', f'{text}, all alike', 'check the weights, and that the '
                          'pictures differ')
        else:
            yield Finding(title, 'ok', text)

    def index(self) -> Iterator[Finding]:
        """Build the index, and reach its server where it has one."""
        from ..index import FaissIndex
        from ..index.faiss.factory import build, rows_needed
        from ..registry import INDEXES
        from .machine import reach_milvus

        given = self.config.model.get('index') or dict(type='retrieval.ExactIndex')
        if not isinstance(given, Mapping):
            given = dict(type=given)
        name = str(given['type']).rpartition('.')[2]
        if name == 'MilvusIndex':  # its rows may be wanted: they are left alone
            yield from reach_milvus(given.get('uri'))
        elif given.get('path') is not None:
            found = os.path.exists(given['path'])
            yield Finding('index', 'ok' if found else 'error', f'{name} in {given["path"]!r}' +
                          ('' if found else ', which is not there'),
                          '' if found else 'write it with `retrieval build_index GALLERY OUT`')
        else:
            built = INDEXES.build(dict(given))
            if isinstance(built, FaissIndex) and self.width:
                wanted = rows_needed(build(built.factory, self.width, built.similarity.name))
                rows = len(self.loaders['gallery' if 'gallery' in self.loaders else
                                        'query'].dataset)
                if rows < wanted:
                    yield Finding('index', 'error', f'{built.factory} needs {wanted} rows to train '
                                  f'on, and the gallery has {rows}', 'name one with fewer lists, '
                                  "or type='ExactIndex'")
                    return
            yield Finding('index', 'ok', f'{name} is built over the gallery at each start')

    # What the sets are to each other -------------------------------------------------------------

    def classes(self) -> Iterator[Finding]:
        """The classes of training that are tested too."""
        names = {name: class_names(loader.dataset) for name, loader in self.loaders.items()}
        train, query, gallery = (names.get(name) for name in ('train', 'query', 'gallery'))
        if train is not None and query is not None:
            yield judge_overlap(train, query)
        if query is not None and gallery is not None and not set(query) & set(gallery):
            yield Finding('classes', 'error', 'the queries and the gallery have no class in common',
                          'give both the same table or the same list of classes')

    def pictures(self) -> Iterator[Finding]:
        """Pictures that stand in two sets under one id, or under two with the same bytes."""
        ids = {name: list(getattr(loader.dataset, 'sample_ids', []) or [])
               for name, loader in self.loaders.items()}
        train, query, gallery = (ids.get(name, []) for name in ('train', 'query', 'gallery'))
        leaked = set(train) & {*query, *gallery}
        if leaked:
            yield Finding('leakage', 'error', f'{len(leaked)} pictures are in training and in the '
                          f'test, such as {min(leaked)!r}', 'take them out of one of both')
        if query and gallery:
            shared = len(set(query) & set(gallery))
            yield Finding('self-matches', 'ok', f'{shared} of {len(query)} queries are in the '
                          'gallery; by their id they are not found by themselves')
        for name, some, others, text in (
                ('leakage', train, {*query, *gallery}, 'training and test'),
                ('self-matches', query, set(gallery), 'queries and gallery')):
            twins = same_bytes(sorted(set(some) - others), sorted(others - set(some)))
            if twins:
                first = ' and '.join(map(repr, twins[0]))
                yield Finding(name, 'warning', f'{len(twins)} pictures of {text} have the same '
                              f'bytes under other names, such as {first}', 'take out one of each '
                              '(retrieval find_duplicates finds near ones too)')

    def relevant(self) -> Iterator[Finding]:
        """The queries for which there is something to find."""
        query, gallery = self.loaders.get('query'), self.loaders.get('gallery')
        names = [class_names(loader.dataset) if loader is not None else None
                 for loader in (query, gallery)]
        if query is None or names[0] is None or names[1] is None:
            return
        own: set[str] = set()
        if gallery is not None:
            own = {*_ids(query.dataset)} & {*_ids(gallery.dataset)}
        yield judge_relevant(names[0], names[1], [name in own for name in _ids(query.dataset)])

    def protocol(self) -> Iterator[Finding]:
        """What is measured, in words."""
        given = self.config.get('test_evaluator') or self.config.get('val_evaluator')
        if not given:
            yield Finding('protocol', 'warning', 'there is no evaluator, so nothing is measured',
                          "set test_evaluator=dict(type='EmbeddingMetrics')")
            return
        counts = {name: len(loader.dataset) for name, loader in self.loaders.items()}
        sets = f'{counts.get("query", 0)} queries against ' + (
            f'{counts["gallery"]} rows' if 'gallery' in counts else 'each other')
        for one in given if isinstance(given, (list, tuple)) else [given]:
            yield Finding('protocol', 'ok', f'{in_words(one)}; {sets}')

    # How long, how much --------------------------------------------------------------------------

    def estimate(self) -> Iterator[Finding]:
        """Time of an epoch and of an evaluation, and memory, from one batch of each."""
        from ..foreign_files import available_memory

        parts = []
        if 'train step' in self.seconds:
            batches = len(self.loaders['train'])
            workers = int(self.config.train_dataloader.get('num_workers', 0))
            each = max(self.seconds['train step'], self.seconds['train read'] / max(workers, 1))
            limit = 'reading' if each > self.seconds['train step'] else 'the model'
            epochs = (self.config.get('train_cfg') or {}).get('max_epochs')
            total = f', {in_time(each * batches * epochs)} for all {epochs}' if epochs else ''
            parts.append(f'an epoch of {batches} batches takes about {in_time(each * batches)}'
                         f'{total}, held up by {limit}')
        images = {name: len(self.loaders[name].dataset) for name in ('query', 'gallery')
                  if name in self.sizes}
        if images:
            spent = sum(count / self.sizes[name] * max(
                self.seconds[f'{name} encode'], self.seconds[f'{name} read'] / 2)
                for name, count in images.items())
            parts.append(f'an evaluation about {in_time(spent)}')
        if parts:
            yield Finding('time', 'ok', '; '.join(parts) + ' (from one batch, the first and '
                          'slowest)')
        rows = 4 * self.width * images.get('gallery', images.get('query', 0))
        peak, free = _peak_memory()
        text = f'{peak / 1e9:.1f} GB at a batch; the gallery takes {rows / 1e9:.2f} GB'
        if peak > 0.9 * free:
            yield Finding('memory', 'warning', f'{text}; {free / 1e9:.1f} GB are there',
                          'lower batch_size or the size of the pictures')
        elif rows > available_memory():
            yield Finding('memory', 'warning', f'{text}; {available_memory() / 1e9:.1f} GB are '
                          'free', "set a projection, or a FaissIndex with codes (see docs)")
        else:
            yield Finding('memory', 'ok', text)


def _ids(dataset: Any) -> list[str]:
    return list(getattr(dataset, 'sample_ids', []) or [])


def _peak_memory() -> tuple[int, int]:
    """The most bytes that were taken so far, and those that there are."""
    from ..foreign_files import available_memory

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    try:
        import resource
    except ImportError:  # there is none on Windows
        return 0, available_memory()
    unit = 1 if sys.platform == 'darwin' else 1024
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return taken, available_memory() + taken


def class_names(dataset: Any) -> list[str] | None:
    """The class of every image by name, or by number where classes have none; None without any.

    Example:
        >>> from types import SimpleNamespace
        >>> class_names(SimpleNamespace(labels=np.array([1, 0]), label_names=['a', 'b']))
        ['b', 'a']
    """
    labels = getattr(dataset, 'labels', None)
    if labels is None:
        return None
    names = getattr(dataset, 'label_names', None)
    return [names[label] if names and 0 <= label < len(names) else str(label)
            for label in np.asarray(labels).tolist()]


def judge_positives(labels: Sequence[int], classifies: bool) -> Finding:
    """Judge the classes of one batch.

    Args:
        labels: of its images.
        classifies: whether the loss has weights for each class, and needs no pairs.

    Example:
        >>> judge_positives([0, 1, 2, 3], classifies=False).level
        'error'
    """
    values, counts = np.unique(np.asarray(labels), return_counts=True)
    paired = int(counts[counts > 1].sum())
    text = f'{paired} of {len(labels)} images of a batch have another of their class in it ' \
        f'({len(values)} classes)'
    advice = "set batch_sampler=dict(type='MPerClassBatchSampler', m=4) in train_dataloader"
    if classifies:
        return Finding('positives', 'ok', f'{text}; the loss compares with classes, not with '
                       'images')
    if len(values) < 2:
        return Finding('positives', 'error', f'{text}: there are no negatives', advice)
    if not paired:
        return Finding('positives', 'error', f'{text}: a loss of pairs learns nothing', advice)
    if paired < _FEW_POSITIVES * len(labels):
        return Finding('positives', 'warning', text, advice)
    return Finding('positives', 'ok', text)


def judge_overlap(train: Sequence[str], test: Sequence[str]) -> Finding:
    """Judge which classes of the test are trained on.

    Example:
        >>> judge_overlap(['cat', 'dog'], ['dog', 'emu']).level
        'warning'
    """
    trained, tested = set(train), set(test)
    both = trained & tested
    text = f'{len(trained)} for training, {len(tested)} for testing'
    if not both:
        return Finding('classes', 'ok', f'{text}, none in both: the result is of new classes')
    if both == tested:
        return Finding('classes', 'ok', f'{text}, all of which are trained on: the result is of '
                       'new pictures of known classes')
    return Finding('classes', 'warning', f'{text}, of which {len(both)} are trained on, such as '
                   f'{min(both)!r}: the result is neither of new classes nor of known ones',
                   'split by class (retrieval init proposes a split)')


def judge_relevant(queries: Sequence[str], gallery: Sequence[str], inside: Sequence[bool]
                   ) -> Finding:
    """Judge how many queries have a row of their class in the gallery besides themselves.

    Args:
        queries, gallery: the class of each.
        inside: whether the query is itself in the gallery.

    Example:
        >>> judge_relevant(['a', 'b'], ['a', 'a', 'c'], [True, False]).found
        '1 of 2 queries have no row of their class to find; they are left out of the means'
    """
    from collections import Counter

    counts = Counter(gallery)
    without = sum(counts[name] - own < 1 for name, own in zip(queries, inside, strict=True))
    text = f'{without} of {len(queries)} queries have no row of their class to find'
    if without == len(queries):
        return Finding('relevant', 'error', text, 'see that queries and gallery name their classes '
                       'alike')
    if without:
        return Finding('relevant', 'warning', f'{text}; they are left out of the means')
    return Finding('relevant', 'ok', 'each query has something to find')


def same_bytes(some: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of files of two lists that have the same bytes; only files of one size are read.

    Of more than some thousands of files nothing is compared.

    Example:
        >>> same_bytes(['no/such.png'], ['no/other.png'])
        []
    """
    if len(some) + len(others) > _MOST_FILES:
        return []
    sizes: list[dict[int, list[str]]] = [{}, {}]
    for table, names in zip(sizes, (some, others), strict=True):
        for name in names:
            if os.path.isfile(name):
                table.setdefault(os.path.getsize(name), []).append(name)
    found = []
    for size in sizes[0].keys() & sizes[1].keys():
        known = {_digest(name): name for name in sizes[0][size]}
        found += [(known[digest], name) for name in sizes[1][size]
                  if (digest := _digest(name)) in known]
    return sorted(found)


def _digest(path: str) -> bytes:
    with open(path, 'rb') as file:
        return blake2b(file.read()).digest()


def in_words(metric: Any) -> str:
    """A metric's config as a sentence.

    Example:
        >>> in_words(dict(type='EmbeddingMetrics', metrics=['Recall@1']))
        'EmbeddingMetrics: Recall@1 by cosine_similarity, mean over queries, exact ranking'
    """
    from ..evaluation.evaluate import DEFAULT_METRICS
    from ..evaluation.protocols import resolve_protocol

    if not isinstance(metric, Mapping):
        return type(metric).__name__
    name = str(metric.get('type')).rpartition('.')[2]
    if name != 'EmbeddingMetrics':
        given = {key: value for key, value in metric.items() if key != 'type'}
        return name + (f' ({", ".join(f"{key}={value!r}" for key, value in given.items())})'
                       if given else '') + ', of what the configured index returns'
    rules: Any = metric
    if metric.get('protocol') is not None:
        known = resolve_protocol(metric['protocol'])
        rules = dict(metrics=known.metrics, similarity=known.similarity, average=known.average,
                     exclude_same=known.exclude_same)
        name = f'{known.name} ({known.source})'
    names = rules.get('metrics') or DEFAULT_METRICS
    names = [names] if isinstance(names, str) else names
    same = rules.get('exclude_same') or ()
    same = (same,) if isinstance(same, str) else same
    return (f'{name}: {", ".join(map(str, names))} by '
            f'{rules.get("similarity") or "cosine_similarity"}, mean over '
            f'{"classes" if rules.get("average") == "macro" else "queries"}, exact ranking'
            + (f', without rows of the same {" and ".join(same)}' if same else ''))


def in_time(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> in_time(0.5), in_time(90), in_time(7300)
        ('0.5 s', '1.5 min', '2.0 h')
    """
    if seconds < 60:
        return f'{seconds:.1f} s'
    return f'{seconds / 60:.1f} min' if seconds < 3600 else f'{seconds / 3600:.1f} h'
