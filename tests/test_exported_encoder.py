"""Exported encoders without torch: models made by hand, and the pixels of the pipeline."""
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from retrieval.datasets import build_pipeline
from retrieval.exported_encoder import (
    ExportedEncoder,
    OnnxModel,
    fitted,
    geometry_of,
    is_export,
    read_manifest,
)


def write_mean_model(path, dtype=TensorProto.UINT8, height=4, width=4):
    """The mean colour less 100, as ONNX."""
    nodes = [helper.make_node('Cast', ['images'], ['floats'], to=TensorProto.FLOAT),
             helper.make_node('ReduceMean', ['floats', 'axes'], ['mean'], keepdims=0),
             helper.make_node('Sub', ['mean', 'hundred'], ['embeddings'])]
    graph = helper.make_graph(
        nodes, 'mean',
        [helper.make_tensor_value_info('images', dtype, ['batch', 3, height, width])],
        [helper.make_tensor_value_info('embeddings', TensorProto.FLOAT, ['batch', 3])],
        [numpy_helper.from_array(np.array([2, 3]), 'axes'),
         numpy_helper.from_array(np.float32(100), 'hundred')])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)],
                                ir_version=9), path)
    return path


def picture(height=37, width=61, channels=3):
    """Soft waves of colour, as pictures have them."""
    down, across = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(down / (3 + c) + across / 7) for c in range(channels)]
    return np.stack(waves, -1).astype(np.uint8)


def test_a_model_made_by_hand(tmp_path):
    model = OnnxModel(write_mean_model(tmp_path / 'mean.onnx'), threads=1)
    assert (model.dtype, model.shape, model.embedding_size) == (np.uint8, (3, 4, 4), 3)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    np.testing.assert_allclose(model(images), images.mean((2, 3)) - 100, atol=1e-4)
    assert model(images[:1]).shape == (1, 3)


def test_any_size_where_the_model_takes_any(tmp_path):
    model = OnnxModel(write_mean_model(tmp_path / 'mean.onnx', height='h', width='w'))
    assert model.shape == (3, None, None)
    assert model(np.zeros((2, 3, 9, 5), np.uint8)).shape == (2, 3)


def test_what_the_model_does_not_take(tmp_path):
    model = OnnxModel(write_mean_model(tmp_path / 'mean.onnx'))
    with pytest.raises(TypeError, match='uint8, got float32'):
        model(np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r'\(B, 3, 4, 4\), got \(1, 3, 8, 8\)'):
        model(np.zeros((1, 3, 8, 8), np.uint8))


def test_what_is_no_encoder(tmp_path):
    (tmp_path / 'text.onnx').write_text('no model')
    with pytest.raises(ValueError, match='ONNX Runtime cannot open'):
        OnnxModel(tmp_path / 'text.onnx')
    write_mean_model(tmp_path / 'whole.onnx', TensorProto.INT64)
    with pytest.raises(ValueError, match='takes images .*, uint8 or float'):
        OnnxModel(tmp_path / 'whole.onnx')


@pytest.mark.parametrize('steps', [
    [dict(type='ResizeEdge', scale=32), dict(type='CenterCrop', crop_size=28)],
    [dict(type='retrieval.ResizeEdge', scale=40, edge='long')],
    [dict(type='ResizeEdge', scale=90, edge='width')],
    [dict(type='Resize', scale=(24, 16))],
    [dict(type='Resize', scale=(120, 80))],
    [dict(type='CenterCrop', crop_size=(21, 30))],
], ids=['crop', 'long', 'width', 'resize', 'enlarge', 'odd'])
@pytest.mark.parametrize('color', ['rgb', 'gray'])
def test_pillow_makes_the_pixels_of_the_pipeline(steps, color):
    pipeline = [dict(type='LoadImage', color=color), *steps, dict(type='PackInputs')]
    image = picture(channels=1 if color == 'gray' else 3)
    expected = build_pipeline(pipeline)({'img': image, 'sample_idx': 0})['inputs'].numpy()
    found = fitted(image, geometry_of(pipeline))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_long_strip_keeps_its_middle():
    pipeline = [dict(type='ResizeEdge', scale=4)]
    image = picture(2, 200)
    expected = build_pipeline(pipeline)({'img': image})['img']
    assert fitted(image, geometry_of(pipeline)).shape[1:] == expected.shape[:2] == (4, 128)


@pytest.mark.parametrize('step', [
    dict(type='Resize', scale=(8, 8), keep_ratio=True), dict(type='LimitLongEdge', limit=9),
    dict(type='ResizeEdge', scale=8, interpolation='lanczos'),
    dict(type='Resize', scale=(8, 8), interpolation='area'), dict(type='RandomFlip', prob=0.5)])
def test_steps_that_pillow_has_not(step):
    assert geometry_of([dict(type='LoadImage'), step]) is None


def write_export_of(folder, **changes):
    """An export by hand."""
    import hashlib

    folder.mkdir(exist_ok=True)
    write_mean_model(folder / 'encoder.onnx')
    digest = hashlib.sha256((folder / 'encoder.onnx').read_bytes()).hexdigest()
    pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=[4, 4]), dict(type='PackInputs')]
    manifest = dict(format='retrieval-export', version=1, runtime='onnx', sha256=digest,
                    similarity=None, pipeline=pipeline, geometry=[['resize', 4, 4, 'SAMPLE']])
    (folder / 'export.json').write_text(json.dumps({**manifest, **changes}))
    return folder


def test_the_folder_of_an_export(tmp_path):
    export = ExportedEncoder(write_export_of(tmp_path / 'mean'))
    assert is_export(tmp_path / 'mean') and not is_export(tmp_path)
    assert export.pipeline[1]['scale'] == (4, 4)  # a tuple, as the transform wants it
    assert export.pixels(picture()).shape == (3, 4, 4)
    assert export.config['model']['image_encoder']['file'] == str(tmp_path / 'mean/encoder.onnx')


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(version=9), 'version 9, and this release reads version 1'),
    (dict(format='other'), 'something else than an exported encoder'),
    (dict(runtime='openvino'), 'export it with --format onnx'),
    (dict(sha256='0' * 64), 'is not the file that was exported'),
    (dict(geometry=None), 'steps that Pillow has not')])
def test_exports_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        ExportedEncoder(write_export_of(tmp_path, **changes)).pixels(picture())


def test_a_manifest_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match='`retrieval export` writes one'):
        read_manifest(tmp_path)
    (tmp_path / 'export.json').write_text('{')
    with pytest.raises(ValueError, match='cannot be read'):
        read_manifest(tmp_path)
    (tmp_path / 'export.json').write_text('{"format": "retrieval-export", "version": 1}')
    with pytest.raises(ValueError, match='it lacks geometry, pipeline, runtime, sha256'):
        read_manifest(tmp_path)


@pytest.mark.slow
def test_torch_is_not_imported(tmp_path):
    Image.fromarray(picture()).save(tmp_path / 'a.png')
    write_export_of(tmp_path / 'mean')
    program = ('import sys; from retrieval.exported_encoder import ExportedEncoder;'
               f'ExportedEncoder({str(tmp_path / "mean")!r}); assert "torch" not in sys.modules')
    subprocess.run([sys.executable, '-c', program], check=True)
