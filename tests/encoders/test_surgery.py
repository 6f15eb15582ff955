import pytest
import torch
from torch import nn
from torchvision import models

from retrieval.encoders import (
    SUPPORTED_MODELS,
    get_module_at_path,
    get_path_to_ultimate_classifier,
    get_ultimate_classifier,
    set_module_at_path,
    split_backbone_classifier,
    update_classifier,
)

ENDINGS = {'vgg11': ['classifier', '6'], 'vit_b_32': ['heads', 'head'], 'resnet18': ['fc'],
           'swin_t': ['head'], 'densenet121': ['classifier'], 'maxvit_t': ['classifier', '5'],
           'googlenet': ['fc'], 'inception_v3': ['fc'], 'mobilenet_v2': ['classifier', '1']}


class Tail(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.last = last


@pytest.mark.parametrize('name', ENDINGS)
def test_where_the_classifier_of_a_family_is(name):
    options = {'init_weights': False} if name in ('googlenet', 'inception_v3') else {}
    with torch.device('meta'):
        model = models.get_model(name, **options)
    path = get_path_to_ultimate_classifier(model)
    assert path == ENDINGS[name]
    layer = get_ultimate_classifier(model)
    assert layer is model.get_submodule('.'.join(path)) and layer.out_features == 1000
    backbone, classifier = split_backbone_classifier(model)
    assert backbone is model and classifier is layer
    assert type(get_module_at_path(model, path)) is nn.Identity


def test_the_list_is_all_of_torchvision_but_squeezenet():
    assert sorted(SUPPORTED_MODELS) == [name for name in models.list_models(module=models)
                                        if not name.startswith('squeezenet')]


@pytest.mark.parametrize('last, path', [
    (nn.Linear(4, 5), ['last']),
    (nn.Sequential(nn.ReLU(), nn.Linear(4, 5)), ['last', '1']),
])
def test_the_last_layer_is_replaced_in_place(last, path):
    model = Tail(last).eval()
    assert get_path_to_ultimate_classifier(model) == path
    assert update_classifier(model, 7) is model
    layer = get_module_at_path(model, path)
    assert (layer.in_features, layer.out_features, layer.bias) == (4, 7, None)
    assert not layer.training
    assert get_ultimate_classifier(update_classifier(model, 2, bias=True)).bias.shape == (2,)


def test_a_linear_layer_is_its_own_classifier():
    model = nn.Linear(3, 4).double()
    assert get_path_to_ultimate_classifier(model) == []
    assert get_module_at_path(model, []) is model
    assert update_classifier(model, 6) is model
    assert model(torch.zeros(2, 3).double()).shape == (2, 6) and model.bias is None
    backbone, classifier = split_backbone_classifier(model)
    assert type(backbone) is nn.Identity and classifier is model


@pytest.mark.parametrize('model', [
    models.squeezenet1_1(), Tail(nn.ReLU()), Tail(nn.Sequential(nn.Linear(4, 5), nn.ReLU())),
    Tail(nn.Sequential(nn.Sequential(nn.Linear(4, 5)))), Tail(nn.Sequential()), nn.ReLU(),
    Tail(Tail(nn.Linear(4, 5))),
], ids=lambda model: type(model).__name__)
def test_a_model_that_ends_otherwise(model):
    before = str(model)
    for function in (get_path_to_ultimate_classifier, get_ultimate_classifier,
                     split_backbone_classifier, lambda model: update_classifier(model, 3)):
        with pytest.raises(ValueError, match='does not end in a linear layer'):
            function(model)
    assert str(model) == before


def test_modules_at_paths():
    model = Tail(nn.Sequential(nn.ReLU(), nn.Linear(4, 5)))
    assert get_module_at_path(model, []) is model
    assert get_module_at_path(model, ['last', '0']) is model.last[0]
    new = nn.GELU()
    assert set_module_at_path(model, ['last', '0'], new) is None
    assert model.last[0] is new


@pytest.mark.parametrize('function, error, says', [
    (lambda model: get_module_at_path(model, ['last', 'x']), ValueError, "'x' in last.*has 0"),
    (lambda model: get_module_at_path(model, 'last'), TypeError, 'list of attribute names'),
    (lambda model: set_module_at_path(model, [], nn.ReLU()), ValueError, 'the model itself'),
    (lambda model: set_module_at_path(model, ['no'], nn.ReLU()), ValueError, "'no' in Tail"),
    (lambda model: set_module_at_path(model, ['last'], 3), TypeError, 'int'),
    (lambda model: update_classifier(model, 0), ValueError, 'at least 1'),
    (lambda model: update_classifier(model, 2.0), TypeError, 'integer'),
])
def test_bad_arguments(function, error, says):
    with pytest.raises(error, match=says):
        function(Tail(nn.Sequential(nn.Linear(4, 5))))
