import pytest
import torch
from torch import nn

from retrieval.encoders.mismatch import compare, extra_blocks, find_prefix, likely_cause, refusal


def model(blocks=2, width=4, classes=3):
    return nn.ModuleDict(dict(
        stem=nn.Linear(3, width),
        layers=nn.Sequential(*(nn.Linear(width, width) for _ in range(blocks))),
        head=nn.Linear(width, classes))).state_dict()


def renamed(state, beginning):
    return {beginning + name: value for name, value in state.items()}


@pytest.mark.parametrize('given, says', [
    (renamed(model(), 'module.'), "begin with 'module.'.*several processes"),
    (renamed(model(), 'ema_model.'), "begin with 'ema_model.'.*average"),
    (renamed(model(), 'image_encoder.backbone.'), 'whole retriever'),
    (model(classes=5), 'number of classes: 5 there and 3 here'),
    (model(width=6), 'another width'),
    (model(blocks=3), r'has blocks that the model has not \(layers.2\)'),
    (model(blocks=1), r'lacks blocks of the model \(layers.1\)'),
    ({'conv.weight': torch.zeros(1)}, 'another architecture'),
])
def test_the_likely_cause(given, says):
    own = model()
    message = refusal('a.pth', own, given, compare(own, given))
    assert 'a.pth' in message
    import re
    assert re.search(says, message.partition('Likely cause: ')[2]), message


def test_a_backbone_alone():
    own = renamed(model(), 'image_encoder.backbone.')
    cause = likely_cause(own, model(), compare(own, model()))
    assert "weights of 'image_encoder.backbone' alone" in cause


def test_everything_is_listed():
    own, given = model(), model(classes=5)
    del given['stem.bias']
    given['neck.weight'] = torch.zeros(1)
    mismatch = compare(own, given)
    assert mismatch == (['stem.bias'], ['neck.weight'], ['head.weight', 'head.bias'], 5)
    message = refusal('a.pth', own, given, mismatch)
    for words in ('5 of 8', 'Missing: stem.bias', 'Unexpected: neck.weight',
                  'head.weight (5, 4) for (3, 4)'):
        assert words in message


def test_beginnings_and_blocks():
    assert find_prefix(['a.b.w', 'a.b.c.w', 'w'], ['w', 'c.w']) == 'a.b.'
    assert find_prefix(['x'], ['y']) == ''
    assert extra_blocks(['l.2.w', 'l.2.b', 'fc.0.w', 'l.1.new.w'], ['l.0.w', 'l.1.w']) == ['l.2']
