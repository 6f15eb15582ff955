import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.commands import browse_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    for number in range(6):
        folder = tmp_path / 'images' / f'class{number % 3}'
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (10, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{number}.png')
    text = f'''
pipeline = [dict(type='LoadImage'), dict(type='RandomCrop', crop_size=8), dict(type='PackInputs')]
dataset = dict(type='ImageFolder', data_root={str(tmp_path / "images")!r}, pipeline=pipeline)
train_dataloader = dict(dataset=dataset)
model = dict(type='ImageToImageRetriever', prototype=dict(dataset=dataset))
'''
    path = tmp_path / 'config.py'
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize('arguments, name', [
    ([], 'train_pipeline.png'),
    (['--split', 'gallery'], 'gallery_pipeline.png'),
    (['--mode', 'original', '--number', '3'], 'train_original.png')])
def test_writes_a_sheet(config, tmp_path, capsys, arguments, name):
    browse_dataset.main([config, '--out', str(tmp_path / 'out'), *arguments])
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [name]
    assert Image.open(tmp_path / 'out' / name).width > 300
    assert f'of 6 images: {tmp_path / "out" / name}' in capsys.readouterr().out


def test_the_same_seed_gives_the_same_sheet(config, tmp_path):
    def sheet(seed):
        browse_dataset.main([config, '--out', str(tmp_path), '--number', '3', '--seed', seed])
        return (tmp_path / 'train_pipeline.png').read_bytes()
    assert sheet('1') == sheet('1') != sheet('5')


@pytest.mark.parametrize('arguments, message', [
    (['--split', 'val'], 'no dataset at `val_dataloader`. It has dataloaders for train'),
    (['--number', '0'], '--number must be an integer of at least 1, got 0'),
    (['--cfg-options', 'train_dataloader.dataset.data_root=/absent'], 'no folder')])
def test_bad_arguments(config, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        browse_dataset.main([config, '--out', str(tmp_path / 'out'), *arguments])
    assert message in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_views_skipped_images_and_labels(tmp_path):
    from retrieval.datasets import ImageList
    Image.new('RGB', (9, 9)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_text('text')
    dataset = ImageList(tmp_path, on_unreadable='skip', pipeline=[
        {'type': 'LoadImage'}, {'type': 'MultiView', 'transforms': []}, {'type': 'PackInputs'}])
    images, captions = browse_dataset.pictures(dataset, [0, 1], 'pipeline', 0)
    assert captions == ['#0', '#0', '#1'] and images[2] is None
    assert browse_dataset.caption(3, torch.tensor([1]), ['cat', 'dog']) == '#3\n1: dog'
    assert browse_dataset.caption(3, 1, None) == '#3\n1'


def test_tensors_become_pictures():
    values = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    plain = browse_dataset.as_array(values)
    np.testing.assert_array_equal(plain, values.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(browse_dataset.as_array(values, bgr=True), plain[..., ::-1])
    stretched = browse_dataset.as_array(values.float() - 5)
    assert stretched.dtype == np.uint8 and stretched.min() == 0 and stretched.max() == 255
    assert browse_dataset.as_array(torch.zeros(5, 2, 2, dtype=torch.uint8)).shape == (2, 2, 1)


def test_help_answers_without_torch():
    code = ('import runpy, sys\nsys.argv = ["x", "--help"]\n'
            'try:\n    runpy.run_path("tools/browse_dataset.py", run_name="__main__")\n'
            'except SystemExit:\n    pass\nsys.exit("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and '--mode {pipeline,original}' in done.stdout, done.stderr
