"""ONNX models as encoders of retrievers."""
import pytest
import torch
from onnx import TensorProto

from retrieval.encoders import OnnxEncoder
from retrieval.gallery import hash_weights
from retrieval.retrievers import build_retriever
from tests.test_exported_encoder import write_mean_model


@pytest.fixture
def file(tmp_path):
    return write_mean_model(tmp_path / 'mean.onnx')


def test_it_encodes_as_the_model_does(file):
    images = torch.randint(0, 256, (3, 3, 4, 4)).float()
    encoder = OnnxEncoder(file)
    assert encoder.embedding_size == 3
    torch.testing.assert_close(encoder(images), images.mean((2, 3)) - 100, atol=1e-4, rtol=0)
    torch.testing.assert_close(encoder(images.to(torch.uint8)), encoder(images))


def test_a_model_of_floats_leaves_the_normalisation_outside(tmp_path):
    file = write_mean_model(tmp_path / 'floats.onnx', TensorProto.FLOAT)
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(OnnxEncoder(file)(images), images.mean((2, 3)) - 100)


def test_normalised_pixels_are_refused(file):
    with pytest.raises(ValueError, match='leave mean and std out of the data preprocessor'):
        OnnxEncoder(file)(torch.randn(1, 3, 4, 4))


def test_the_retriever_of_a_config(file):
    images = torch.tensor([[10, 0, 200], [200, 10, 0]], dtype=torch.uint8)[:, :, None, None]
    model = build_retriever(
        dict(type='ImageToImageRetriever', topk=1, similarity_fn='euclidean',
             image_encoder=dict(type='OnnxEncoder', file=str(file))),
        prototype=images[:, :, 0, 0].float() - 100, device='cpu')
    batch = model.data_preprocessor(dict(inputs=list(images.expand(2, 3, 4, 4))))
    assert [int(s.pred_label) for s in model.predict(batch['inputs'])] == [0, 1]


def test_galleries_know_which_file_made_them(tmp_path, file):
    other = tmp_path / 'other.onnx'
    other.write_bytes(file.read_bytes())
    assert hash_weights(OnnxEncoder(file)) == hash_weights(OnnxEncoder(other))
    write_mean_model(other, width=8)
    assert hash_weights(OnnxEncoder(file)) != hash_weights(OnnxEncoder(other))
