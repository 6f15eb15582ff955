"""Exports of a small encoder in every format, against torch, on pictures in folders of classes."""
import json

import numpy as np
import pytest
import torch

from retrieval.export.formats import open_encoder
from retrieval.export.write_export import MOST_PICTURES, check_target, write_export
from retrieval.exported_encoder import ExportedEncoder
from retrieval.retrievers import build_retriever

PIPELINE = [dict(type='LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]


@pytest.mark.slow
@pytest.mark.parametrize(('format', 'precision', 'least'), [
    ('onnx', 'fp32', 0.999999), ('onnx', 'fp16', 0.9999), ('onnx', 'int8', 0.9),
    ('openvino', 'fp32', 0.999999), ('openvino', 'fp16', 0.9999), ('openvino', 'int8', 0.9),
    ('torchscript', 'fp32', 0.999999)])
def test_every_format_encodes_as_torch_does(tmp_path, model, dataset, format, precision, least):
    if format == 'openvino':
        pytest.importorskip('openvino')
    out = tmp_path / 'out'
    parity = write_export(out, model, PIPELINE, dataset, format, precision)
    manifest = json.loads((out / 'export.json').read_text())
    assert parity.least_cosine >= least
    assert parity.pictures == (40 if precision != 'int8' else 30)  # a quarter for the ranges
    assert (manifest['runtime'], manifest['precision']) == (format, precision)
    assert not [path for path in tmp_path.iterdir() if path != out]
    encode = open_encoder(out / manifest['file'])
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    with torch.no_grad():
        expected = model.image_encoder((torch.from_numpy(images).float() - 120) / 60).numpy()
    for some in (images, images[:1]):  # a batch of any size
        one, other = expected[:len(some)], encode(some)
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() >= least
    if (format, precision) == ('onnx', 'fp16'):
        whole = sum(p.numel() for p in model.image_encoder.parameters()) * 4
        assert (out / 'encoder.onnx').stat().st_size < whole  # but for names and biases, half


@pytest.mark.slow
def test_the_ranks_that_are_told_are_those_of_the_embeddings(export, model, dataset):
    """By a plain loop over cosines."""
    told = json.loads((export / 'export.json').read_text())['parity']
    inputs = torch.stack([dataset[row]['inputs'] for row in range(len(dataset))])
    with torch.no_grad():
        rows = model.image_encoder((inputs.float() - 120) / 60).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    labels = np.array(dataset.labels)
    hits = np.mean([labels[scores[row].argmax()] == labels[row] for row in range(len(rows))])
    assert told['metrics']['Recall@1'][0] == pytest.approx(100 * hits)
    assert told['changed_first'] == 0
    assert told['overlap'] == 1


@pytest.mark.slow
def test_an_export_is_the_encoder_of_a_retriever(export, model, dataset):
    opened = ExportedEncoder(export)
    searcher = build_retriever(opened.config, device='cpu')
    inputs = torch.stack([dataset[row]['inputs'] for row in range(4)])
    with torch.no_grad():
        expected = model.image_encoder((inputs.float() - 120) / 60)
    found = searcher.embed(searcher.data_preprocessor(dict(inputs=inputs))['inputs'])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    searcher.search_in(pipeline=opened.pipeline)
    assert searcher.fingerprint(dataset).as_dict() == opened.manifest['fingerprint']


@pytest.mark.slow
def test_another_encoder_is_not_written(tmp_path, model, dataset, monkeypatch):
    from retrieval.export import write_export as module

    def changed(path):
        encode = open_encoder(path)
        return lambda images: encode(images[..., ::-1].copy())

    monkeypatch.setattr(module, 'open_encoder', changed)
    with pytest.raises(ValueError, match='the exported encoder is another one'):
        write_export(tmp_path / 'out', model, PIPELINE, dataset, 'torchscript')
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken(tmp_path):
    assert check_target(tmp_path) == tmp_path  # an empty folder
    (tmp_path / 'a').touch()
    with pytest.raises(FileExistsError, match='is there already'):
        check_target(tmp_path)


def test_one_picture_is_too_few(tmp_path, model, dataset):
    class One:
        def __len__(self):
            return 1

    with pytest.raises(ValueError, match='measured on pictures, and there are 1'):
        write_export(tmp_path / 'out', model, PIPELINE, One(), 'torchscript')
    assert MOST_PICTURES >= 1000


def test_torchscript_is_written_in_the_quick_tests_too(tmp_path, model, dataset):
    parity = write_export(tmp_path / 'out', model, PIPELINE, dataset, 'torchscript')
    assert parity.least_cosine > 0.99999
    assert parity.by_pillow is None
    assert set(parity.metrics) == {'Recall@1', 'mAP'}
    assert 'first result is another: 0.00 %' in parity.report()
