import pytest
import torch
from mmengine.config import Config
from torch import nn

from retrieval.encoders import GlobalAveragePooling, ImageEncoder, build_encoder
from retrieval.registry import MODELS


@MODELS.register_module()
class TwoStages(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, images):
        return images, self.conv(images)


def test_a_dict_is_built_and_a_module_is_kept():
    assert isinstance(build_encoder(dict(type='TwoStages')), TwoStages)
    module = nn.Flatten()
    assert build_encoder(module) is module


def test_a_list_is_run_in_a_row_and_hands_tuples_on():
    encoder = build_encoder([dict(type='TwoStages', width=5),
                             dict(type='GlobalAveragePooling'), nn.Flatten()])
    images = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(encoder(images), encoder[0].conv(images).mean((2, 3)))
    assert isinstance(encoder[1], GlobalAveragePooling)
    assert list(encoder.state_dict()) == ['0.conv.weight', '0.conv.bias']


def test_configs_of_the_engine_are_dicts_and_lists():
    config = Config(dict(model=[dict(type='TwoStages'), dict(type='retrieval.GeM', p=2)],
                         encoder=dict(type='ImageEncoder', backbone=dict(
                             type='TimmBackbone', model_name='test_resnet'))))
    assert build_encoder(config.model)(torch.rand(1, 3, 6, 6)).shape == (1, 4)
    assert isinstance(build_encoder(config.encoder), ImageEncoder)


@pytest.mark.parametrize('cfg, error, says', [
    (None, TypeError, 'image_encoder must be.*NoneType'),
    ('resnet50', TypeError, 'image_encoder must be.*str'),
    ([], ValueError, 'empty list'),
    (dict(depth=50), ValueError, r"no type.*\['depth'\]"),
    ([dict(type='TwoStages'), 3], TypeError, r'image_encoder\[1\]'),
    (dict(type='TwoStage'), ValueError, "'TwoStages'"),
])
def test_bad_configs(cfg, error, says):
    with pytest.raises(error, match=says):
        build_encoder(cfg)


def test_a_prefix_beside_the_path_of_a_checkpoint_belongs_to_it(tmp_path):
    def config(**options):
        return dict(type='TimmBackbone', model_name='test_resnet', **options)

    source = build_encoder(config())
    state = {f'teacher.{name}': value for name, value in source.model.state_dict().items()}
    torch.save({**state, **{f'student.{name}': value * 0 for name, value in
                            source.model.state_dict().items()}}, tmp_path / 'a.pth')
    built = build_encoder(config(checkpoint=str(tmp_path / 'a.pth'), checkpoint_prefix='teacher.'))
    for name, value in source.state_dict().items():
        assert torch.equal(built.state_dict()[name], value)
