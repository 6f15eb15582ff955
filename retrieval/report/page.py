"""The report as one HTML file, which asks for nothing from elsewhere."""
from __future__ import annotations

import base64
import difflib
import io
import os
import platform
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from .. import __version__
from ..evaluation import QueryResults
from ..evaluation.metrics import metric_definition
from ..files import write_text
from ..visualization import Pictures, distinct_names
from . import charts
from .comparison import RunComparison
from .findings import SimilarPair, first_results, of_queries
from .run import Run
from .summary import Summary

_EDGE = 128               # of a picture in pixels
_MOST_BYTES = 6_000_000   # of all pictures together, so that the page stays below 10 MB
_SHOWN = 6                # results of a query
_CLASSES, _MORE_CLASSES = 25, 1000
_PAIRS, _HUBS, _SUSPECTS, _CONFUSED, _CHANGED = 12, 16, 24, 24, 12
_NAMED = 8                # classes that have a colour of their own on the map


class Shown(NamedTuple):
    """A query or a row of the gallery on the page.

    Args:
        name: the shortest end of its id that no other has.
        id: the whole id, or number.
        label: the name of its class, or nothing.
        image: its picture as the address of inline data, or nothing.
    """

    name: str
    id: str
    label: str
    image: str


class Gallery(NamedTuple):
    """The names and labels of one side of an evaluation."""

    ids: Sequence[str]
    labels: Any


class View:
    """What a template asks of a run: its queries and rows, with their pictures.

    Args:
        run: the run.
        spent: bytes of pictures on the page so far, in a list of one number.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet, EvaluationTask
        >>> rows = EmbeddingSet([[1., 0.], [.9, .1]], ['cat', 'cat'], ['p/1.png', 'p/2.png'])
        >>> View(Run('toy', {'': EvaluationTask(rows)})).query(1)
        Shown(name='2.png', id='p/2.png', label='cat', image='')
    """

    def __init__(self, run: Run, spent: list[int] | None = None) -> None:
        self.run = run
        task = run.task
        self.queries = Gallery(run.query_names, task.labels[0])
        self.rows = Gallery(run.row_names, task.labels[1])
        self._names = task.label_names
        self._spent = [0] if spent is None else spent
        self._images: dict[str, str] = {}
        ids = list(dict.fromkeys([*self.queries.ids, *self.rows.ids]))
        self._short = _short_names(ids)

    def class_name(self, label: Any) -> str:
        """The name of a class by its number."""
        names, number = self._names, int(label)
        return str(names[number]) if 0 <= number < len(names) else str(number)

    def query(self, number: int) -> Shown:
        """A query by its number."""
        return self._shown(self.queries, number)

    def row(self, number: int) -> Shown:
        """A row of the gallery by its number."""
        return self._shown(self.rows, number)

    def hub_rows(self, summary: Summary, count: int) -> list[int]:
        """The rows that are found most often."""
        counts = summary.hubs.counts
        order = counts.sort(descending=True, stable=True).indices[:count]
        return [row for row in order.tolist() if counts[row]]

    def _shown(self, side: Gallery, number: int) -> Shown:
        name = side.ids[number]
        label = '' if side.labels is None else self.class_name(side.labels[number])
        return Shown(self._short[name], name, label, self._image(name))

    def _image(self, name: str) -> str:
        if name not in self._images:
            picture = None if self.run.pictures is None or self._spent[0] > _MOST_BYTES else \
                self.run.pictures.of(name)
            self._images[name] = '' if picture is None else inline_image(picture)
        self._spent[0] += len(self._images[name])
        return self._images[name]


class FolderPictures(Pictures):
    """The pictures whose ids are paths below a folder.

    Args:
        folder: the folder.

    Example:
        >>> FolderPictures('pictures').of('cat/1.png') is None
        True
    """

    def __init__(self, folder: str) -> None:
        super().__init__([])
        self.folder = folder

    def of(self, sample_id: str) -> Image.Image | None:
        """The picture, or None where there is none, or the path leads out of the folder."""
        path = os.path.abspath(os.path.join(self.folder, sample_id))
        inside = os.path.join(os.path.abspath(self.folder), '')
        return super().of(path) if path.startswith(inside) else None


def _short_names(ids: Sequence[str]) -> dict[str, str]:
    """The shortest distinct ends of paths; of very many, those without what all begin with."""
    if len(ids) <= 5000:
        return distinct_names(ids)
    shared = os.path.commonprefix(list(ids)).rpartition('/')
    begin = len(shared[0]) + 1 if shared[1] else 0
    return {name: name[begin:] for name in ids}


def inline_image(picture: Image.Image) -> str:
    """A picture as the address of inline data: WebP, at most 128 pixels.

    Example:
        >>> inline_image(Image.new('RGB', (400, 200)))[:23]
        'data:image/webp;base64,'
    """
    small = picture.convert('RGB')
    small.thumbnail((_EDGE, _EDGE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, 'WEBP', quality=72)
    return 'data:image/webp;base64,' + base64.b64encode(out.getvalue()).decode()


def write_report(run: Run, summary: Summary, path: str | os.PathLike[str]) -> None:
    """Write the report of a run.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet, EvaluationTask
        >>> from retrieval.report import summarize
        >>> rows = EmbeddingSet([[1., 0.], [.9, .1], [0., 1.], [.1, .9]], [7, 7, 8, 8])
        >>> run = Run('toy', {'': EvaluationTask(rows)})
        >>> write_report(run, summarize(run), 'report.html')
        >>> open('report.html').readline()
        '<!DOCTYPE html>\\n'
    """
    view = View(run)
    _write('report.html', path, title=run.name, run=run, view=view, found=summary,
           protocol=protocol_in_words(run, summary), definitions=_definitions(run.metrics),
           worst=_worst(view, summary), pairs=_pairs(summary), charts=_charts(view, summary),
           limits=dict(classes=_CLASSES, more=_MORE_CLASSES, hubs=_HUBS,
                       suspects=_SUSPECTS, confused=_CONFUSED),
           environment=environment(), memory=_peak_memory())


def write_comparison(runs: tuple[Run, Run], results: tuple[QueryResults, QueryResults],
                     compared: RunComparison, path: str | os.PathLike[str]) -> None:
    """Write the comparison of two runs.

    Args:
        runs: the two.
        results: of their queries.
        compared: what :func:`retrieval.report.compare_runs` found.
        path: of the file.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet, EvaluationTask, rank_queries
        >>> from retrieval.report import compare_runs
        >>> rows = EmbeddingSet([[1., 0.], [.9, .1], [0., 1.], [.1, .9]], [7, 7, 8, 8])
        >>> run = Run('toy', {'': EvaluationTask(rows)})
        >>> results = rank_queries(run.task)
        >>> compared = compare_runs(results, results)
        >>> write_comparison((run, run), (results, results), compared, 'c.html')
        >>> 'https' in open('c.html').read()
        False
    """
    spent = [0]
    views = View(runs[0], spent), View(runs[1], spent)
    column = decisive(compared)
    difference = compared.differences[:, column].numpy()
    order = np.argsort(difference, kind='stable')
    changed = {
        'Better in the second': [one for one in order[::-1][:_CHANGED] if difference[one] > 0],
        'Worse in the second': [one for one in order[:_CHANGED] if difference[one] < 0]}
    bound = max(float(np.abs(difference).max()), 1.0)
    edges = np.linspace(-bound, bound, 42)
    chart = charts.histogram(
        {'queries': np.histogram(difference, edges)[0]}, edges,
        f'difference in {compared.metrics[column].name}, percent', 'queries',
        'How many queries differ by how much', mark=('no difference', 0))
    _write('comparison.html', path, title=f'{runs[0].name} and {runs[1].name}', runs=runs,
           compared=compared, column=column, chart=chart,
           changed={title: _changed(views, compared, results, rows, column)
                    for title, rows in changed.items()},
           classes=_class_changes(views[0], compared, results[0], column),
           definitions=_definitions([one.name for one in compared.metrics]),
           lines=_config_changes(runs), environment=environment())


def decisive(compared: RunComparison) -> int:
    """The column of the metric by which queries are told apart: that of the most values.

    Example:
        >>> import torch
        >>> from retrieval.report import compare_runs
        >>> results = [QueryResults(['Recall@1', 'mAP'], torch.tensor(rows).double(),
        ...                         torch.ones(3)) for rows in
        ...            ([[0., .5], [1., .7], [0., 1.]], [[0., .2], [1., .1], [1., 1.]])]
        >>> decisive(compare_runs(*results))
        1
    """
    different = [len(np.unique(column.round(6))) for column in compared.differences.T.numpy()]
    return int(np.argmax(different))


def _write(template: str, path: str | os.PathLike[str], **values: Any) -> None:
    shelf = Environment(loader=PackageLoader('retrieval.report', 'templates'), autoescape=True,
                        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shelf.filters.update(readable=readable, breakable=breakable)
    text = shelf.get_template(template).render(version=__version__, **values)
    # names of files may hold bytes that are no UTF-8
    write_text(path, text.encode('utf-8', 'replace').decode('utf-8'))


def readable(number: float) -> str:
    """A number with narrow spaces between its thousands, at which no line is broken.

    Example:
        >>> readable(1234567).replace('\\u202f', ' ')
        '1 234 567'
    """
    return f'{number:,}'.replace(',', '\u202f')


def breakable(path: str) -> Markup:
    """A path that may be broken behind its slashes.

    Example:
        >>> breakable('a/<b>')
        Markup('a/<wbr>&lt;b&gt;')
    """
    return Markup('/<wbr>').join(path.split('/'))


def protocol_in_words(run: Run, summary: Summary) -> list[str]:
    """How the metrics were measured, a sentence each.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet, EvaluationTask
        >>> from retrieval.report import summarize
        >>> rows = EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8])
        >>> run = Run('toy', {'': EvaluationTask(rows)})
        >>> protocol_in_words(run, summarize(run))[0]
        'Each of 3 pictures is a query against all others (leave-one-out).'
    """
    task = run.task
    (queries, rows), means = map(readable, task.shape), summary.means[run.level]
    said = [f'Each of {queries} pictures is a query against all others (leave-one-out).'
            if task.gallery is None else f'Each of {queries} queries ranks {rows} rows of the '
            'gallery' + (', which are the same pictures.' if summary.same_set else '.')]
    said.append('Relevant are the rows that the ground truth lists for a query.'
                if task.relevance is not None else "Relevant are the rows of the query's class.")
    left_out = [] if task.gallery is None or task.queries.ids is None else [
        "the row with the query's own id"]
    left_out += [f"rows of its class with the query's {name}" for name in task.exclude_same]
    left_out += ['rows that the ground truth lists as junk'] if task.junk is not None else []
    if left_out:
        said.append(f'Not ranked: {"; ".join(left_out)}.')
    said.append(f'Similarity: {run.similarity_name}. The '
                'ranking is exact, and of equal scores the lower row comes first.')
    skipped = int(means['num_skipped_queries'])
    over = 'classes of the means of their queries' if run.average == 'macro' else 'queries'
    empty = 'a query without a relevant row counts as 0' if run.empty_queries == 'zero' else \
        f'{readable(skipped)} queries have no relevant row and are left out' if skipped else \
        'every query has a relevant row'
    said.append(f'Means are over {over}, in percent; {empty}.')
    said.append(f'Intervals are 95 % percentile bootstrap intervals of 1000 draws over '
                f'{"classes" if run.average == "macro" else "queries"}: how the mean would vary '
                'with other queries, the gallery and the model being the same.')
    if len(run.tasks) > 1:
        said.append(f'There are several ground truths, {", ".join(run.tasks)}; everything below '
                    f'the metrics is of {run.level}.')
    if run.source:
        said.append(f'The protocol is that of {run.source}.')
    return said


def _definitions(metrics: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, re.sub(r':\w+:`([^`]*)`|``([^`]*)``', r'\1\2', metric_definition(name)))
            for name in metrics]


def _worst(view: View, summary: Summary) -> list[dict[str, Any]]:
    """The worst queries with their first results, of which ranks count from 1."""
    return [dict(worst=one, query=view.query(one.query),
                 results=_results(view, summary.first.rows[one.query],
                                  summary.first.scores[one.query],
                                  summary.first.relevant[one.query]))
            for one in summary.worst]


def _pairs(summary: Summary) -> dict[str, list[SimilarPair]]:
    """The most similar pairs, those apart whose two sides are not relevant to each other."""
    right, wrong = ([one for one in summary.pairs if one.relevant is same][:_PAIRS]
                    for same in (True, False))
    return {'The most similar pairs that are not relevant': wrong,
            'The most similar pairs that are': right}


def _results(view: View, rows: Any, scores: Any, relevant: Any) -> list[dict[str, Any]]:
    return [dict(shown=view.row(row), score=score, right=right) for row, score, right in zip(
        rows.tolist()[:_SHOWN], scores.tolist(), relevant.tolist(), strict=False) if row >= 0]


def _charts(view: View, summary: Summary) -> dict[str, Any]:
    run, similar = view.run, summary.similarities
    drawn: dict[str, Any] = {
        'recall': charts.line_chart({'Recall@K': summary.recall}, 'K', 'Recall@K, percent',
                                    'Recall@K over K', powers=True, dots=True),
        'precision': charts.line_chart(
            {'rankings, mean over queries': summary.ranking,
             **({} if similar is None else {'all pairs, one threshold': similar.curve})},
            'recall', 'precision', 'Precision over recall', y=(0, 1)),
        'map': charts.scatter(_map_groups(view, summary), 'The embeddings in two dimensions')}
    if similar is not None:
        drawn['similarities'] = charts.histogram(
            {'others': similar.others, 'matches': similar.matches}, similar.edges, 'similarity',
            'share of the pairs', 'Similarities of matches and of others',
            mark=('threshold', similar.best.threshold))
    counts = summary.hubs.counts.numpy()
    edges = np.arange(0, counts.max() + 2)
    if len(edges) > 61:
        edges = np.linspace(0, counts.max() + 1, 61)
    drawn['hubs'] = charts.histogram(
        {'rows': np.histogram(counts, edges)[0]}, edges,
        f'queries that have a row among their first {summary.hubs.k}', 'rows',
        'How often rows are found')
    if run.training is not None:
        drawn['losses'] = charts.line_chart(run.training.losses, 'iteration', 'loss',
                                            'Loss over iterations')
        shown = {name: points for name, points in run.training.validations.items()
                 if name.removeprefix('embedding/') in run.metrics}
        if shown or run.training.validations:
            drawn['validations'] = charts.line_chart(
                shown or run.training.validations, run.training.unit, 'percent',
                'Validations over the training', dots=True)
    return drawn


def _map_groups(view: View, summary: Summary) -> dict[str, Any]:
    """The points of the map by class where these are few, else by right and wrong first results."""
    plane, first = summary.map, summary.first
    labels = view.queries.labels
    few = labels is not None and len(labels.unique()) <= _NAMED
    groups: dict[str, list[int]] = {}
    titles = []
    for point, (query, row) in enumerate(zip(plane.queries.tolist(), plane.rows.tolist(),
                                             strict=True)):
        if query < 0:
            group = 'rows of the gallery'
        elif few:
            group = view.class_name(labels[query])
        elif summary.results[view.run.level].num_relevant[query] == 0:
            group = 'nothing relevant to find'
        else:
            right = bool(first.relevant[query, :1].any())
            group = 'first result right' if right else 'first result wrong'
        groups.setdefault(group, []).append(point)
        side, number = (view.queries, query) if query >= 0 else (view.rows, row)
        label = '' if side.labels is None else view.class_name(side.labels[number])
        titles.append(f'{view._short[side.ids[number]]} ({label})' if label else side.ids[number])
    order = sorted(groups, key=lambda name: (name != 'rows of the gallery', 'wrong' in name, name))
    return {name: (plane.points[groups[name]], [titles[point] for point in groups[name]])
            for name in order}


def _changed(views: tuple[View, View], compared: RunComparison,
             results: tuple[QueryResults, QueryResults], rows: Sequence[Any],
             column: int) -> list[dict[str, Any]]:
    """Queries that changed, with the first results of either run."""
    import torch

    if not len(rows):
        return []
    places = torch.tensor([int(one) for one in rows])
    sides = []
    for view, numbers in zip(views, compared.queries, strict=True):
        found = first_results(of_queries(view.run.task, numbers[places]), _SHOWN)
        sides.append([_results(view, *columns) for columns in zip(
            found.rows, found.scores, found.relevant, strict=True)])
    name = compared.metrics[column].name
    values = [100 * side.results[numbers[places], list(side.metrics).index(name)]
              for side, numbers in zip(results, compared.queries, strict=True)]
    return [dict(query=views[0].query(int(compared.queries[0][place])), before=float(before),
                 after=float(after), first=first, second=second)
            for place, before, after, first, second in zip(
                places.tolist(), *values, *sides, strict=True)]


def _class_changes(view: View, compared: RunComparison, results: QueryResults,
                   column: int) -> list[tuple[str, int, float]]:
    """Classes with how many queries and by how much they changed, most at first."""
    if results.labels is None:
        return []
    labels = results.labels[compared.queries[0]].numpy()
    codes, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.bincount(place, compared.differences[:, column].numpy()) / sizes
    order = np.argsort(-np.abs(means), kind='stable')[:_CLASSES]
    return [(view.class_name(codes[one]), int(sizes[one]), float(means[one])) for one in order
            if means[one]]


def _config_changes(runs: tuple[Run, Run]) -> list[str]:
    first, second = runs
    return list(difflib.unified_diff(first.config.splitlines(), second.config.splitlines(),
                                     first.name, second.name, lineterm='', n=1))


def environment() -> dict[str, str]:
    """The versions and the machine that a report is made with.

    Example:
        >>> environment()['retrieval'] == __version__
        True
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    return {'retrieval': __version__, 'Python': platform.python_version(),
            'torch': torch.__version__, 'NumPy': np.__version__,
            'system': f'{platform.system()} {platform.machine()}',
            'processors': str(os.cpu_count()), 'threads of torch': str(torch.get_num_threads()),
            'GPU': device}


def _peak_memory() -> float:
    """The most memory of this process so far, in GiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2 ** (30 if platform.system() == 'Darwin' else 20)
