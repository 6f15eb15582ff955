"""Small galleries that the tests of this folder share."""
import numpy as np
import torch

from retrieval.gallery import Fingerprint, Gallery


def example(count=3, prefix='', seed=0, **kwargs):
    """A gallery with every kind of column; ids are prefix0, prefix1, …"""
    generator = torch.Generator().manual_seed(seed)
    names = ['cat', 'dog', 'ünïcode']
    defaults = dict(
        ids=[f'{prefix}{row}' for row in range(count)], labels=[row % 3 for row in range(count)],
        label_names=names, metadata=dict(
            camera=np.arange(count) % 2, city=[f'Zürich {row // 2}' for row in range(count)],
            score=np.linspace(0, 1, count, dtype=np.float32)),
        fingerprint=Fingerprint('w', 'p', None), source=dict(checkpoint='x.pth'),
        skipped={f'{prefix}bad.png': 'truncated'}, similarity='cosine_similarity')
    return Gallery(torch.randn(count, 4, generator=generator), **{**defaults, **kwargs})


def contents(gallery):
    """Everything that a gallery holds, as plain Python, for comparisons."""
    return dict(
        embeddings=gallery.embeddings.tolist(), ids=list(gallery.ids),
        labels=None if gallery.labels is None else gallery.labels.tolist(),
        label_names=gallery.label_names, identified=gallery.identified,
        metadata={name: list(column) if not isinstance(column, torch.Tensor) else column.tolist()
                  for name, column in gallery.metadata.items()},
        fingerprint=gallery.fingerprint, skipped=gallery.skipped, similarity=gallery.similarity,
        source={name: value for name, value in gallery.source.items() if name != 'versions'})


def rows_of(gallery):
    """For each id all that belongs to it, whatever the order of the rows."""
    return {name: (gallery.embeddings[row].tolist(), gallery.label_name(row),
                   gallery.describe(row)) for row, name in enumerate(gallery.ids)}
