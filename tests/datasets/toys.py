"""Small datasets and files for the tests of this folder."""
# ruff: noqa: NPY002  (the global generator is what is tested)
import random

import numpy as np
import torch
from PIL import Image

from retrieval.datasets import RetrievalDataset


class Draw:
    """Adds what the three generators draw; a callable that worker processes can pickle."""

    def __call__(self, results):
        # one legacy normal leaves a second one cached in numpy's global state
        results['drawn'] = (np.random.random_sample(), np.random.standard_normal(),
                            random.random(), torch.rand(1).item())
        return results


class Toy(RetrievalDataset):
    """Pictures in memory, three classes in turn."""

    metadata_keys = ('camera',)

    def __init__(self, count=10, **kwargs):
        self.count = count
        super().__init__(**kwargs)

    def load_data_list(self):
        self._metainfo['classes'] = ('a', 'b', 'c')
        return [{'img': np.full((4, 5), row, np.uint8), 'sample_id': f's{row}',
                 'gt_label': row % 3, 'camera': row * 10} for row in range(self.count)]


def save(path, value=128, size=(6, 4), mode='RGB'):
    """A picture of one colour, ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == 'L' else (value,) * 3).save(path)
    return path


def drawn_by_loader(dataset, workers, sampler=None, batch_size=3, passes=1, each_pass=None):
    """What the items of every pass drew, through a dataloader with persistent workers."""
    from torch.utils.data import DataLoader
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers,
                        persistent_workers=workers > 0, collate_fn=list)
    out = []
    for number in range(passes):
        if each_pass:
            each_pass(number)
        out.append([item['drawn'] for batch in loader for item in batch])
    return out
