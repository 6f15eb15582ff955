"""Parts that are found and shown, and duplicates that are proved, on Copies.

    retrieval prepare_copies data/copies
    python benchmarks/parts.py search data/copies
    python benchmarks/parts.py proof data/copies

``search``: the copies that are cut, framed or pasted into another picture search all photographs
and distractors: by one vector a picture, by the parts of it, and with the first hundred results
checked by local features. ``IoU`` is that of the box that is shown in the result with the part of
the photograph that is in the copy, and of the box in the query with the place where it lies there;
0 where none is shown. The picture into which a part was pasted is found rightly, and left out.

``proof``: every copy against its photograph, and 10,000 pairs of different photographs, or of
copies of these, that are nearest to each other by the default encoder. And what
``find_duplicates --prove`` finds of all pictures together: how many copies reach their photograph
as candidates, and are proved to be one. And photographs of which a part was pasted over, against
the whole ones.
"""
from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from retrieval import Gallery, ImageRetrievalInferencer
from retrieval.commands.folders import with_local_rerank, with_parts
from retrieval.ranking import topk
from retrieval.runs.named_model import named_model
from retrieval.search.proof import COPIES, KINDS, Evidence, prove
from retrieval.search.proved_duplicates import prove_duplicates
from retrieval.structures import RetrievalDataSample

CUT = ('crop-80', 'crop-50', 'crop-20', 'framed', 'screenshot', 'pasted-50', 'pasted-20', 'several')
NEGATIVES = 10_000
COLOURS = ('white', 'black', '#c02020', '#2040a0', '#888888')
BENEATH: dict[str, dict[str, Any]] = {
    'int8': dict(type='retrieval.ExactIndex', dtype='int8'),
    'faiss SQ8': dict(type='retrieval.FaissIndex', factory='SQ8'),
    'faiss PCA256,SQ8': dict(type='retrieval.FaissIndex', factory='PCA256,SQ8')}
SEARCHES = [('one vector', '', False), ('one vector of the whole', '', False),
            ('parts', 'int8', False), ('parts', 'faiss SQ8', False),
            ('parts', 'faiss PCA256,SQ8', False), ('parts', 'int8', True), ('one vector', '', True)]
SHOWN = ('one vector', 'parts, int8', 'one vector, checked', 'parts, int8, checked')


class Copies:
    """The folder that prepare_copies wrote.

    Args:
        folder: its path.
        every: take the copies of every so-manieth photograph alone.
    """

    def __init__(self, folder: Path, every: int = 1) -> None:
        table = pd.read_csv(folder / 'copies.csv', dtype=str, keep_default_na=False)
        table['path'] = [str(folder / path) for path in table.path]
        self.queries = table[table.is_query == 'True'].reset_index(drop=True)
        self.gallery = table[table.is_gallery == 'True'].reset_index(drop=True)
        photographs = sorted((folder / 'photographs').iterdir())
        self.photograph = {path.stem: str(path) for path in photographs}
        # each is pasted into the seventh behind it, see retrieval.commands.prepare_copies
        names = [path.stem for path in photographs]
        self.queries = self.queries[self.queries.label.isin(names[::every])]
        self.behind = {name: names[(number + 7) % len(names)] for number, name in enumerate(names)}

    def related(self, label: str, alteration: str) -> set[str]:
        """The photographs that are in a copy."""
        return {label, self.behind[label]} if alteration.startswith('pasted') else {label}


def shares(box: str, path: str) -> list[float]:
    """A box of the table as left, top, width and height in shares of its picture."""
    width, height = size_of(path)
    left, top, right, bottom = map(float, box.split())
    return [left / width, top / height, (right - left) / width, (bottom - top) / height]


@lru_cache(None)
def size_of(path: str) -> tuple[int, int]:
    """Width and height of a picture."""
    from PIL import Image
    with Image.open(path) as image:
        return image.size


def iou(one: list[float] | None, other: list[float]) -> float:
    """The intersection of two boxes over their union; 0 for none."""
    if one is None:
        return 0.0
    sides = [max(0.0, min(one[at] + one[at + 2], other[at] + other[at + 2])
                 - max(one[at], other[at])) for at in (0, 1)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def search(copies: Copies, cache: Path) -> None:
    """Print what is found and shown of parts."""
    queries = copies.queries[copies.queries.alteration.isin(CUT)
                             & copies.queries.label.isin(copies.gallery.label)]
    tables: dict[str, pd.DataFrame] = {}
    print('| search | mAP | crops | in other pictures | first right | IoU in the result '
          '| IoU in the query | ms a query | bytes a picture |\n' + '|---' * 9 + '|')
    for name, beneath, checked in SEARCHES:
        title = ', '.join(filter(None, (name, beneath, 'checked' if checked else '')))
        config = configured(name, beneath, checked)
        gallery, asked = (encoded(config, list(paths), cache / f'{name}-{kind}')
                          for kind, paths in (('gallery', copies.gallery.path),
                                              ('queries', queries.path)))
        inferencer = ImageRetrievalInferencer(
            config, gallery, pipeline=config.test_dataloader.dataset.pipeline, progress=False)
        model, answers, began = inferencer.model, [], time.monotonic()
        for path, vector in zip(queries.path, asked.embeddings, strict=True):
            sample = RetrievalDataSample(metainfo=dict(img_path=path, sample_id=path))
            model.search(vector[None], [sample], len(copies.gallery))
            answers.append(inferencer.answer(sample, None))
        each = 1000 * (time.monotonic() - began) / len(queries)
        frame = scored(copies, queries, answers)
        tables[title] = frame.groupby('alteration').mean()
        crops, pasted = (frame[frame.alteration.str.startswith(part)].ap.mean()
                         for part in ('crop', 'pasted'))
        cells = [f'{100 * value:.1f}' for value in (frame.ap.mean(), crops, pasted,
                                                    frame['first'].mean())]
        cells += [f'{value:.2f}' if checked else '' for value in (
            frame.iou.mean(), frame.own_iou.mean())]
        size = model.holder.index.nbytes / len(copies.gallery)
        print(f'| {title} | {" | ".join(cells)} | {each:.1f} | {size:,.0f} |', flush=True)
    shown = [title for title in SHOWN if title in tables]
    print(f'\n{len(queries)} queries, {len(copies.gallery)} pictures\n\n| alteration | '
          + ' | '.join(f'{title}: mAP' for title in shown)
          + ' | IoU in the result | IoU in the query |\n' + '|---' * (len(shown) + 3) + '|')
    for alteration in CUT:
        frame = tables[shown[-1]].loc[alteration]
        print(f'| {alteration} | ' + ' | '.join(
            f'{100 * tables[title].loc[alteration].ap:.1f}' for title in shown)
            + f' | {frame.iou:.2f} | {frame.own_iou:.2f} |', flush=True)


def encoded(config: Any, paths: list[str], cache: Path) -> Any:
    """The gallery of some pictures, from its file where there is one; the vector of a whole picture
    is the first of those of its parts.
    """
    if cache.name.startswith('one vector of the whole'):
        parts = encoded(configured('parts', 'int8', False), paths,
                        cache.with_name(cache.name.replace('one vector of the whole', 'parts')))
        return Gallery(parts.embeddings[:, :parts.dim // 10], parts.ids)
    path = cache.with_suffix('.safetensors')
    if not path.exists():
        began = time.monotonic()
        made = ImageRetrievalInferencer(config, paths, progress=False,
                                        pipeline=config.test_dataloader.dataset.pipeline)
        made.model.gallery.save(path)
        print(f'<!-- {cache.name}: {1000 * (time.monotonic() - began) / len(paths):.0f} ms a '
              'picture to encode -->', flush=True)
    return Gallery.load(path)


def configured(name: str, beneath: str, checked: bool) -> Any:
    """The config of one of :data:`SEARCHES`."""
    config = named_model(None, encoder='efficientnet-lite0')[0]
    if name != 'one vector':
        pooling = config.model.image_encoder.pooling
        with_parts(config, whole_pictures=True)
        if name == 'parts':
            config.model.index.index = BENEATH[beneath]
        else:
            config.model.image_encoder.pooling = pooling
            config.model.index = dict(type='retrieval.ExactIndex')
    if checked:
        with_local_rerank(config)
    return config


def scored(copies: Copies, queries: pd.DataFrame, answers: list[dict[str, Any]]) -> pd.DataFrame:
    """For each query its average precision, whether it is first, and the IoU of its boxes."""
    lines = []
    for query, answer in zip(queries.itertuples(), answers, strict=True):
        known = copies.related(query.label, query.alteration) - {query.label}
        hits = [hit for hit in answer['results'] if Path(hit['id']).stem not in known]
        place, hit = next((place, hit) for place, hit in enumerate(hits)
                          if Path(hit['id']).stem == query.label)
        lines.append(dict(alteration=query.alteration, ap=1 / (place + 1), first=place == 0,
                          iou=iou(hit.get('box'), shares(query.seen, hit['id'])),
                          own_iou=iou(hit.get('query_box'), shares(query.place, query.path))))
    return pd.DataFrame(lines)


def proof(copies: Copies, cache: Path) -> None:
    """Print what is proved of copies, and of pictures that are merely similar."""
    read = lru_cache(4000)(Evidence)
    lines: list[dict[str, Any]] = []
    began = time.monotonic()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        proofs = pool.map(lambda query: prove(read(query.path), read(
            copies.photograph[query.label])), copies.queries.itertuples())
        for query, one in zip(copies.queries.itertuples(), proofs, strict=True):
            lines.append(dict(alteration=query.alteration, kind=one.kind))
    pairs = pd.DataFrame(lines)
    print(f'{len(pairs)} copies against their photographs, '
          f'{1000 * (time.monotonic() - began) / len(pairs):.0f} ms a pair with reading\n',
          flush=True)
    table = pd.crosstab(pairs.alteration, pairs.kind, normalize='index') * 100
    kinds = [kind for kind in KINDS if kind in table]

    everything = [*copies.queries.path, *copies.gallery.path]
    labels = [*copies.queries.label, *copies.gallery.label]
    alterations = [*copies.queries.alteration, *[''] * len(copies.gallery)]
    config = named_model(None, encoder='efficientnet-lite0')[0]
    gallery = Gallery(torch.cat([
        encoded(config, list(side.path), cache / name).embeddings for side, name in (
            (copies.queries, 'copies'), (copies.gallery, 'one vector-gallery'))]), everything)
    found = prove_duplicates(gallery, read)
    group_of: dict[str, int] = {}
    for number, group in enumerate(found.groups):
        for row in group.rows:
            group_of[everything[row]] = number
    reached: dict[str, list[bool]] = {}
    for path, label, alteration in zip(everything, labels, alterations, strict=True):
        photograph = copies.photograph.get(str(label))
        if alteration and photograph in everything:
            reached.setdefault(alteration, []).append(
                path in group_of and group_of[path] == group_of.get(str(photograph)))
    print('| alteration | ' + ' | '.join(kinds) + ' | proved | in one group with the photograph |\n'
          + '|---' * (len(kinds) + 3) + '|')
    for alteration in table.index:
        line = table.loc[alteration]
        proved = sum(line.get(kind, 0) for kind in (*COPIES, 'part'))
        print(f'| {alteration} | ' + ' | '.join(f'{line[kind]:.0f}' for kind in kinds)
              + f' | {proved:.0f} | {100 * np.mean(reached[alteration]):.0f} |')
    mixed = sum(len({labels[row] for row in group.rows}) > 1 for group in found.groups
                if all(labels[row] in copies.photograph for row in group.rows))
    print(f'\n{found.compared} pairs compared, {len(found.groups)} groups, {mixed} of them of more '
          f'than one photograph, {len(found.parts)} pairs that share a part')

    covered_over(copies, read)

    photographs = [row for row, label in enumerate(labels) if label in copies.photograph]
    negatives = [(photographs[one], photographs[other], score) for one, other, score in
                 hard_negatives(copies, gallery.embeddings[photographs],
                                [labels[row] for row in photographs],
                                [alterations[row] for row in photographs])]
    began, called = time.monotonic(), []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        proofs = pool.map(lambda pair: prove(
            read(everything[pair[0]]), read(everything[pair[1]]), pair[2]), negatives)
        for (first, second, _), result in zip(negatives, proofs, strict=True):
            if result.kind != 'similar':
                called.append((result, everything[first], everything[second]))
    print(f'{len(negatives)} pairs of different photographs, similarity '
          f'{negatives[-1][2]:.2f} to {negatives[0][2]:.2f}: {len(called)} called something else, '
          f'{1000 * (time.monotonic() - began) / len(negatives):.1f} ms a pair')
    for result, *pair in called:
        print(result.kind, result.inliers, result.alike, *pair)


def covered_over(copies: Copies, read: Any) -> None:
    """Print what is proved of photographs of which a part was pasted over."""
    from PIL import Image
    names = sorted(set(copies.queries.label))
    lines = []
    for number, name in enumerate(names):
        images = [Image.open(copies.photograph[one]).convert('RGB')
                  for one in (name, copies.behind[name])]
        for place in ('left', 'bottom', 'centre'):
            for area in (30, 50, 70):
                for over in (Image.new('RGB', (8, 8), COLOURS[number % len(COLOURS)]), images[1]):
                    encoded = BytesIO()
                    covered(images[0], place, area / 100, over).save(encoded, 'JPEG', quality=90)
                    one = Evidence(np.asarray(Image.open(encoded)))
                    kind = prove(one, read(copies.photograph[name])).kind
                    lines.append({'pasted over': f'{place}, {area} %', 'kind': kind})
    pairs = pd.DataFrame(lines)
    table = pd.crosstab(pairs['pasted over'], pairs.kind, normalize='index') * 100
    print(f'\n{len(pairs)} photographs of which a part was pasted over\n\n'
          f'| pasted over | {" | ".join(table)} |\n' + '|---' * (len(table.columns) + 1) + '|')
    for title in pairs['pasted over'].unique():
        print(f'| {title} | ' + ' | '.join(f'{value:.0f}' for value in table.loc[title]) + ' |',
              flush=True)


def covered(image: Any, place: str, area: float, over: Any) -> Any:
    """An image of which a share of the area, on the left, below or in the middle, is under another.
    """
    width, height = image.size
    box = dict(left=(0, 0, area, 1), bottom=(0, 1 - area, 1, 1),
               centre=(.5 - area ** .5 / 2, .5 - area ** .5 / 2,
                       .5 + area ** .5 / 2, .5 + area ** .5 / 2))[place]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(
        box, (width, height) * 2, strict=True))
    copy = image.copy()
    copy.paste(over.resize((right - left, bottom - top)), (left, top))
    return copy


def hard_negatives(copies: Copies, vectors: torch.Tensor, labels: list[str],
                   alterations: list[str]) -> list[tuple[int, int, float]]:
    """The most similar pairs of pictures that show different photographs; of two of these at most
    a fifth of a percent of all.
    """
    related = [copies.related(label, alteration) if label in copies.behind else {label}
               for label, alteration in zip(labels, alterations, strict=True)]
    found = topk(vectors, vectors, 400, exclude=torch.arange(len(vectors)))
    pairs = {}
    for row, (scores, others) in enumerate(zip(found.scores.tolist(), found.indices.tolist(),
                                               strict=True)):
        for score, other in zip(scores, others, strict=True):
            if other >= 0 and not related[row] & related[other]:
                pairs[min(row, other), max(row, other)] = score
    chosen: list[tuple[int, int, float]] = []
    times: dict[frozenset[str], int] = {}
    for (one, other), score in sorted(pairs.items(), key=lambda pair: -pair[1]):
        both = frozenset((labels[one], labels[other]))
        times[both] = times.get(both, 0) + 1
        if times[both] <= NEGATIVES // 500:
            chosen.append((one, other, score))
    return chosen[:NEGATIVES]


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('what', choices=['search', 'proof'])
    arguments.add_argument('folder', type=Path, help='what prepare_copies wrote')
    arguments.add_argument('--every', type=int, default=1, metavar='N',
                           help='the copies of every Nth photograph alone')
    arguments.add_argument('--cache', type=Path, help='where encoded pictures are kept')
    given = arguments.parse_args()
    with TemporaryDirectory() as folder:
        dict(search=search, proof=proof)[given.what](
            Copies(given.folder, given.every), given.cache or Path(folder))


if __name__ == '__main__':
    main()
