"""mAP while a gallery is encoded anew, from the old model's rows to the new one's.

    retrieval train resnet10-arcface_4e_glyphs --work-dir work_dirs/old
    retrieval train resnet10-arcface_4e_glyphs --work-dir work_dirs/new --cfg-options randomness.seed=1
    retrieval dump_prototype CONFIG work_dirs/old/epoch_1.pth old.safetensors
    retrieval dump_prototype CONFIG work_dirs/new/epoch_4.pth new.safetensors
    python benchmarks/model_change.py old.safetensors new.safetensors

A fifth of the pictures are queries (2,000 at the most), the others the gallery; rows are encoded in
a random order. ``both``: queries are encoded with both models, rows that only the old one has are
scored by it, the others by the mean of both, the new score at the old one's scale. ``mapped``: by
the new model alone, old queries are mapped from new ones. ``new rows alone``: what is not encoded
anew is not found. ``no scale``: each row by its model's own cosine.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from retrieval import Gallery
from retrieval.retrievers.model_change import ModelChange, learn_map
from retrieval.similarity import normalize


def mean_average_precision(scores: torch.Tensor, same: torch.Tensor) -> float:
    """Over the queries with a match, in percent."""
    ranked = same.gather(1, scores.argsort(dim=1, descending=True, stable=True)).double()
    precision = ranked.cumsum(1) / torch.arange(1, ranked.shape[1] + 1)
    found = ranked.sum(1)
    return float(100 * ((precision * ranked).sum(1) / found)[found > 0].mean())


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('old', type=Path)
    arguments.add_argument('new', type=Path)
    arguments.add_argument('--rows', type=int, default=10_000, help='of the galleries that are used')
    arguments.add_argument('--weight', type=float, default=0.5)
    given = arguments.parse_args()
    old, new = Gallery.load(given.old), Gallery.load(given.new)
    order = np.random.default_rng(0).permutation(len(old))[:given.rows]
    asked, kept = order[:min(2000, len(order) // 5)], order[min(2000, len(order) // 5):]
    ids = list(map(str, range(len(kept))))

    def sides(gallery: Gallery) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = normalize(gallery.embeddings.float())
        return vectors[asked], vectors[kept]
    (asked_old, rows_old), (asked_new, rows_new) = sides(old), sides(new)
    assert old.labels is not None
    same = old.labels[asked][:, None] == old.labels[kept][None]
    scores_old, scores_new = asked_old @ rows_old.T, asked_new @ rows_new.T
    before, after = (mean_average_precision(one, same) for one in (scores_old, scores_new))
    print(f'{len(asked)} queries, {len(kept)} rows; old model {before:.2f}, new model {after:.2f}')
    print('| encoded anew | both | mapped | new rows alone | no scale |\n|---|---|---|---|---|')
    paired = 200  # at 0 percent the models know so many pictures together
    for share in (0, 25, 50, 75, 100):
        count = max(paired, len(kept) * share // 100)
        change = ModelChange(Gallery(rows_old, ids), Gallery(rows_new[:count], ids[:count]),
                             given.weight)
        rows = change.gallery.embeddings
        if share == 0:
            rows = rows.clone()
            rows[:count] = 0
            rows[:, :rows_old.shape[1]] = rows_old
        both, mapped = (mean_average_precision(change.queries(asked_new, one) @ rows.T, same)
                        for one in (asked_old, None))
        plain = scores_old.clone()
        plain[:, :count * (share > 0)] = scores_new[:, :count * (share > 0)]
        alone = scores_new.clone()
        alone[:, count * (share > 0):] = -2
        cells = [both, mapped, mean_average_precision(alone, same) if share else 0,
                 mean_average_precision(plain, same)]
        print(f'| {share} % | ' + ' | '.join(f'{cell:.2f}' for cell in cells) + ' |', flush=True)
    learned = learn_map(rows_new[:2000], rows_old[:2000])
    print(f'map of 2,000 rows: {learned.kind}, agreement {learned.agreement:.3f}; old queries find '
          'what they find')


if __name__ == '__main__':
    main()
