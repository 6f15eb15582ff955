"""mAP while a gallery is encoded anew, from the old model's rows to the new one's.

    retrieval train resnet10-arcface_4e_glyphs --work-dir work_dirs/old
    retrieval train resnet10-arcface_4e_glyphs --work-dir work_dirs/new \\
        --cfg-options randomness.seed=1
    retrieval dump_prototype CONFIG work_dirs/old/epoch_1.pth old.safetensors
    retrieval dump_prototype CONFIG work_dirs/new/epoch_4.pth new.safetensors
    python benchmarks/model_change.py old.safetensors new.safetensors

A fifth of the pictures are queries (2,000 at the most), the others the gallery; rows are encoded in
a random order. ``both``: queries are encoded with both models, and rows that only the old one has
are mapped to the new one beside. ``new queries``: by the new model alone, old rows are mapped.
``old``: the old model, which answers until the switch. ``new rows alone``: what is not encoded anew
is not found. ``each its own``: each row by the cosine of its own model, the queries with both.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from retrieval import Gallery
from retrieval.retrievers.model_change import ModelChange
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
    arguments.add_argument('--rows', type=int, default=10_000, help='of the galleries, at most')
    arguments.add_argument('--paired', type=int, default=200)
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
    print('| encoded anew | both | new queries | old | new rows alone | each its own |\n'
          + '|---' * 6 + '|')
    for share in (0, 25, 50, 75, 100):
        done = len(kept) * share // 100
        count = max(given.paired, done)  # at 0 percent so many pictures are known to both
        found = []
        for weight, asked_first in ((0.5, asked_old), (1., None)):
            change = ModelChange(Gallery(rows_old, ids), Gallery(rows_new[:count], ids[:count]),
                                 weight)
            found.append(change.join(asked_new, asked_first) @ change.gallery.embeddings.T)
        alone, own = scores_new.clone(), scores_old.clone()
        alone[:, done:], own[:, :done] = -2, scores_new[:, :done]
        cells = [mean_average_precision(one, same) for one in (*found, scores_old, alone, own)]
        if not done:
            cells[3] = 0.
        print(f'| {share} % | ' + ' | '.join(f'{cell:.1f}' for cell in cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
