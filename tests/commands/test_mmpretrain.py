"""An unmodified mmpretrain config and checkpoint, where mmpretrain is installed."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import retrieval.registry  # noqa: F401  (mends what mmpretrain's import needs)

from .conftest import run

mmpretrain = pytest.importorskip('mmpretrain', exc_type=ImportError)

SMALL = '''
_base_ = {base!r}
model = dict(
    image_encoder=[dict(type='ResNet', depth=18), dict(type='GlobalAveragePooling')],
    head=dict(type='ArcFaceClsHead', num_classes=4, in_channels=512,
              loss=dict(type='CrossEntropyLoss', loss_weight=1.0), init_cfg=None),
    prototype=dict(dataset=dict(data_root={root!r}), num_workers=0))
train_dataloader = dict(dataset=dict(data_root={root!r}), num_workers=0)
query_dataloader = dict(dataset=dict(data_root={root!r}), num_workers=0)
gallery_dataloader = dict(dataset=dict(data_root={root!r}), num_workers=0)
val_dataloader = dict(dataset=dict(data_root={root!r}), num_workers=0)
test_dataloader = dict(dataset=dict(data_root={root!r}), num_workers=0)
'''


@pytest.fixture(scope='module')
def inshop(tmp_path_factory):
    """A miniature of InShop in its layout."""
    root = tmp_path_factory.mktemp('inshop')
    rng = np.random.default_rng(0)
    lines = []
    for item in range(8):
        for number in range(4):
            status = 'train' if item < 4 else 'query' if number == 0 else 'gallery'
            name = f'img/{item}_{number}.jpg'
            path = root / 'Img' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (60, 50, 3), dtype=np.uint8)).save(path)
            lines.append(f'{name} id_{item:08d} {status}')
    (root / 'Eval').mkdir()
    (root / 'Eval' / 'list_eval_partition.txt').write_text(
        f'{len(lines)}\nimage_name item_id evaluation_status\n' + '\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='module')
def config(inshop, tmp_path_factory):
    shipped = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / 'arcface'
    path = tmp_path_factory.mktemp('config') / 'inshop.py'
    base = str(shipped / 'resnet50-arcface_8xb32_inshop.py')
    path.write_text(SMALL.format(base=base, root=str(inshop)))
    return path


def theirs(config, checkpoint):
    """The rankings of mmpretrain's own retriever."""
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner, load_checkpoint
    from mmpretrain.registry import MODELS
    read = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(read.model, data_preprocessor=read.data_preprocessor)).eval()
        load_checkpoint(model, checkpoint, map_location='cpu')
        loader = Runner.build_dataloader(read.test_dataloader)
        with torch.no_grad():
            return [sample.pred_label.tolist() for batch in loader
                    for sample in model.test_step(batch)]


def test_it_runs_and_ranks_the_same(config, tmp_path):
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS
    read = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(read.model, data_preprocessor=read.data_preprocessor))
    checkpoint = tmp_path / 'checkpoint.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    out = tmp_path / 'predictions.json'
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--out', out,
                         '--out-item', 'pred')
    assert status == 0, err
    ours = [entry['pred_label'] for entry in json.loads(out.read_text())]
    assert len(ours) == 4 and ours == theirs(config, str(checkpoint))


@pytest.mark.parametrize('backbone, pooling, width', [
    (dict(type='mmpretrain.ResNet', depth=18), True, 512),
    (dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1] * 4, channels=[4, 4, 8, 8])), False, 8),
    (dict(type='mmpretrain.SwinTransformer', img_size=64, window_size=2, arch=dict(
        embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)), True, 64),
    (dict(type='mmpretrain.VisionTransformer', img_size=64, patch_size=16, arch=dict(
        embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)), False, 16),
])
def test_a_backbone_of_mmpretrain_in_our_encoder(backbone, pooling, width):
    from retrieval.encoders import ImageEncoder
    torch.manual_seed(0)
    encoder = ImageEncoder(backbone, projection=5, normalize=False,
                           **({} if pooling else dict(pooling=None))).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.backbone(images)[-1]
        expected = encoder.projection(features.mean((2, 3)) if pooling else features)
        torch.testing.assert_close(encoder(images), expected)
    assert features.shape[1] == width
