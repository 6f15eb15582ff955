"""Small pieces that the retriever's tests share."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from retrieval.structures import RetrievalDataSample


def collate(items):
    return dict(inputs=[item['inputs'] for item in items],
                data_samples=[item['data_samples'] for item in items])


class Images(Dataset):
    """Random images with classes; an item counts how often it was read."""

    def __init__(self, count=7, classes=3, paths=True, seed=0, prefix='image'):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(count, 3, 4, 4, generator=generator)
        self.labels = [i % classes for i in range(count)]
        self.paths, self.prefix = paths, prefix
        self.reads = [0] * count
        self.pipeline_cfg = [dict(type='Toy')]
        self.metainfo = dict(classes=[f'class {c}' for c in range(classes)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.reads[row] += 1
        metainfo = dict(sample_idx=row)
        if self.paths:
            metainfo['img_path'] = f'{self.prefix}{row}.png'
        sample = RetrievalDataSample(metainfo=metainfo).set_gt_label(self.labels[row])
        return dict(inputs=self.images[row], data_samples=sample)


class Encoder(nn.Module):
    """A linear map that counts the images it has seen."""

    def __init__(self, width=5):
        super().__init__()
        self.linear = nn.Linear(48, width, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.seen = 0

    def forward(self, inputs):
        self.seen += len(inputs)
        return self.dropout(self.linear(inputs.flatten(1)))


def loader(dataset=None, batch_size=3, **kwargs):
    dataset = Images() if dataset is None else dataset
    return DataLoader(dataset, batch_size=batch_size, collate_fn=collate, **kwargs)
