"""Pictures in folders of classes, a small encoder, and its export."""
import pytest
import torch
from torch import nn

from retrieval.datasets import ImageFolder
from retrieval.export.write_export import write_export
from retrieval.retrievers import ImageToImageRetriever
from tests.commands.conftest import draw_classes

PIPELINE = [dict(type='LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    draw_classes(root)
    return root


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 12, 5, 2), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(),
                            nn.Flatten(), nn.Linear(384, 8))
    return ImageToImageRetriever(encoder, data_preprocessor=dict(mean=[120.], std=[60.])).eval()


@pytest.fixture
def dataset(pictures):
    return ImageFolder(pictures, pipeline=PIPELINE)


@pytest.fixture(scope='module')
def export(tmp_path_factory, model, pictures):
    out = tmp_path_factory.mktemp('exports') / 'small'
    write_export(out, model, PIPELINE, ImageFolder(pictures, pipeline=PIPELINE))
    return out
