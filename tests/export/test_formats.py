"""The module that is exported, its files and what opens them; every format through
``write_export`` is in test_write_export.py.
"""
import sys

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.export.formats import (
    PixelEncoder,
    check_formats,
    open_encoder,
    stacked,
    write_encoder,
)
from retrieval.retrievers import ImageToImageRetriever


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8))


def test_it_is_the_preprocessor_and_the_encoder(model, images):
    module = PixelEncoder(model)
    expected = model.image_encoder((images.float() - 120) / 60)
    torch.testing.assert_close(module(images), expected)
    assert not any(weight.requires_grad for weight in module.parameters())


def test_of_several_outputs_the_last_counts(images):
    class Stages(nn.Module):
        def forward(self, images):
            return images.mean((1, 2, 3)), images.mean((2, 3))

    module = PixelEncoder(ImageToImageRetriever(Stages()))
    torch.testing.assert_close(module(images), images.float().mean((2, 3)))


def test_torchscript_is_opened_again_without_the_module(model, images, tmp_path):
    module = PixelEncoder(model)
    path = write_encoder(module, images[:2], tmp_path, 'torchscript', 'fp32', lambda: ())
    assert path == tmp_path / 'encoder.pt'
    encode = open_encoder(path)
    for some in (images, images[:1]):  # a batch of any size
        np.testing.assert_allclose(encode(some.numpy()), module(some), atol=1e-5)


def test_images_of_one_size_are_stacked(images):
    assert torch.equal(stacked(list(images)), images)


def test_formats_that_there_are_not():
    with pytest.raises(ValueError, match="'onxx'.*onnx"):
        check_formats('onxx', 'fp32')
    with pytest.raises(ValueError, match='precision'):
        check_formats('onnx', 'fp8')
    with pytest.raises(ValueError, match='in fp32 alone, not in int8'):
        check_formats('torchscript', 'int8')


def test_what_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ImportError, match='wants onnxscript.*retrieval.export'):
        check_formats('onnx', 'fp32')


def test_images_of_several_sizes(tmp_path, model):
    with pytest.raises(ValueError, match='several sizes.*CenterCrop'):
        stacked([torch.zeros(3, 4, size, dtype=torch.uint8) for size in (4, 5)])
    with pytest.raises(TypeError, match='leave the normalisation'):
        stacked([torch.zeros(3, 4, 4)])


def test_other_data_preprocessors(model):
    class Other(nn.Module):
        data_preprocessor, image_encoder = nn.Identity(), nn.Identity()

    with pytest.raises(TypeError, match='not a Identity'):
        PixelEncoder(Other)
