import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from retrieval.encoders import (
    SUPPORTED_MODELS,
    Recognizer,
    get_module_at_path,
    get_path_to_ultimate_classifier,
    get_ultimate_classifier,
    set_module_at_path,
    split_backbone_classifier,
    update_classifier,
)
from retrieval.heads import LogitsHead
from retrieval.registry import MODELS
from retrieval.retrievers import ImageToImageRetriever
from retrieval.structures import RetrievalDataSample

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


FAMILIES = {'alexnet': 64, 'densenet121': 32, 'efficientnet_b0': 32, 'googlenet': 32,
            'inception_v3': 96, 'mnasnet0_5': 32, 'mobilenet_v2': 32, 'mobilenet_v3_small': 32,
            'regnet_x_400mf': 32, 'resnet18': 32, 'shufflenet_v2_x0_5': 32, 'swin_t': 32,
            'convnext_tiny': 32, 'swin_v2_t': 32, 'efficientnet_v2_s': 32}
LARGE = {'vit_b_32': 224, 'vgg11_bn': 32, 'maxvit_t': 224, 'wide_resnet50_2': 32,
         'resnext50_32x4d': 32}


BIASED = {'maxvit_t': 1}  # its last layer has no bias, all others have a weight and a bias


@pytest.fixture
def quick_weights(monkeypatch):
    """Weights are drawn cheaply: torchvision's own drawing takes most of the time."""
    for name in [n for n in vars(nn.init) if n.endswith('_') and not n.startswith('_')]:
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)

    def draw(model):
        with torch.no_grad():
            for weight in model.parameters():
                bound = (6 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 1.0
                weight.uniform_(-bound if weight.ndim > 1 else 0.5, bound)
        return model

    return draw


def before_the_classifier(name, model, images):
    """What torchvision's own forward gives to its last linear layer."""
    seen = []
    layer = [m for n, m in model.named_modules() if isinstance(m, nn.Linear)
             and 'aux' not in n.lower()][-1]
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    model.eval()(images)
    hook.remove()
    return seen[0]


def check(name, size, draw):
    model = draw(Recognizer(name, num_classes=3))
    extra = {'aux_logits': False} if name in ('googlenet', 'inception_v3') else {}
    whole = models.get_model(name, weights=None, **extra)
    whole.load_state_dict(model.backbone.state_dict(), strict=False)
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits = model.train()(images)
        embeddings = model.eval()(images)
        expected = before_the_classifier(name, whole, images)
    assert logits.shape == (2, 3)
    assert (logits.abs() <= 1 + 1e-5).all()
    assert embeddings.shape == (2, model.embedding_size)
    # In training mode the running statistics moved; they are taken over once more.
    whole.load_state_dict(model.backbone.state_dict(), strict=False)
    with torch.no_grad():
        expected = before_the_classifier(name, whole, images)
    torch.testing.assert_close(embeddings, expected / expected.norm(dim=1, keepdim=True))
    names = list(model.state_dict())
    assert len(names) == len(set(names)) == (
        len(whole.state_dict()) + 1 - BIASED.get(name, 2))
    assert sum('classifier' in name for name in names if not name.startswith('backbone')) == 1


@pytest.mark.parametrize('name', [
    'resnet18', 'googlenet', 'shufflenet_v2_x0_5', 'mobilenet_v3_small', 'mnasnet0_5',
    *(pytest.param(name, marks=pytest.mark.slow) for name in ('inception_v3', 'regnet_x_400mf'))])
def test_a_member_of_a_family(name, quick_weights):
    check(name, FAMILIES[name], quick_weights)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*FAMILIES, *LARGE])
def test_every_family(name, quick_weights):
    check(name, {**FAMILIES, **LARGE}[name], quick_weights)


@pytest.mark.slow
@pytest.mark.parametrize('name', SUPPORTED_MODELS)
def test_every_name(name, quick_weights):
    model = Recognizer(name, num_classes=3).to('meta')
    size = getattr(model.backbone, 'image_size', 224)
    images = torch.empty(2, 3, size, size, device='meta')
    assert model.train()(images).shape == (2, 3)
    assert model.eval()(images).shape == (2, model.embedding_size)
    assert type(model.classifier) is nn.Linear
    backbone = models.get_model(name, weights=None, **(
        {'aux_logits': False, 'init_weights': False} if name in ('googlenet', 'inception_v3')
        else {}))
    assert len(model.backbone.state_dict()) == len(backbone.state_dict()) - BIASED.get(name, 2)


def test_logits_are_cosines_over_the_temperature():
    torch.manual_seed(0)
    model = Recognizer('resnet18', 4, clf_bias=True, temperature=0.1).train()
    for module in model.modules():  # as in evaluation, but for the mode of the Recognizer itself
        if module is not model:
            module.eval()
    raw = model.classifier.weight.detach().clone() * 3
    model.classifier.weight.data.copy_(raw)
    images = torch.rand(2, 3, 32, 32)
    logits = model(images)
    embeddings = model.eval()(images)
    bias = model.classifier.bias
    expected = [[(sum(a * b for a, b in zip(e.tolist(), row.tolist(), strict=True))
                  / row.norm().item() + bias[i].item()) / 0.1 for i, row in enumerate(raw)]
                for e in embeddings]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.classifier.weight.norm(dim=1), torch.ones(4))


def test_without_normalisation_and_without_classes():
    images = torch.rand(2, 3, 32, 32)
    model = Recognizer('resnet18', 4, normalize=False)
    rows = model.classifier.weight.detach().clone()
    model.train()(images)
    assert torch.equal(model.classifier.weight, rows)
    assert (model.eval()(images).norm(dim=1) - 1).abs().max() > 0.1
    model = Recognizer('resnet18')
    assert model.classifier is None
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(images).norm(dim=1), torch.ones(2))


def test_two_forwards_before_one_backward():
    model = Recognizer('resnet18', 4).train()
    images = torch.rand(2, 3, 32, 32)
    (model(images).sum() + model(images).sum()).backward()
    assert model.classifier.weight.grad.isfinite().all()


def test_it_learns_in_a_plain_loop():
    torch.manual_seed(0)
    labels = torch.arange(16) % 4
    images = 0.2 * torch.randn(16, 3, 32, 32) + functional.one_hot(labels, 4)[:, :3, None, None]
    model = Recognizer('resnet18', 4, temperature=0.1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(8):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize('num_classes, head', [
    (4, dict(type='LogitsHead')),
    (None, dict(type='ClassificationHead', num_classes=4, in_features=512)),
])
def test_in_a_retriever(num_classes, head):
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='ImageToImageRetriever', prototype=torch.randn(5, 512), head=head, topk=3,
        image_encoder=dict(type='Recognizer', model_name='resnet18', num_classes=num_classes)))
    assert isinstance(model, ImageToImageRetriever)
    before = model.image_encoder.backbone.conv1.weight.detach().clone()
    model.init_weights()
    assert torch.equal(before, model.image_encoder.backbone.conv1.weight)
    samples = [RetrievalDataSample().set_gt_label(label) for label in (0, 3)]
    images = torch.rand(2, 3, 32, 32)
    loss = model.train()(images, samples, mode='loss')['loss']
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.eval()(images, mode='tensor').shape == (2, 512)
    assert len(model(images, samples, mode='predict')[0].pred_label) == 3


def test_the_head_of_logits():
    logits = torch.randn(2, 4, dtype=torch.bfloat16)
    samples = [RetrievalDataSample().set_gt_label(label) for label in (1, 3)]
    value = LogitsHead(loss_weight=2.0).loss((None, logits), samples)['loss']
    rows = logits.float().log_softmax(1)
    torch.testing.assert_close(value, -(rows[0, 1] + rows[1, 3]))
    with pytest.raises(ValueError, match=r'num_classes=3'):
        LogitsHead().loss(logits[:, :3], samples)
    with pytest.raises(ValueError, match=r'\(2, 4, 1\)'):
        LogitsHead().loss(logits[..., None], samples)


def test_a_local_file_of_torchvision(tmp_path):
    torch.manual_seed(1)
    whole = models.resnet18().eval()
    torch.save(whole.state_dict(), tmp_path / 'a.pth')
    model = Recognizer('resnet18', 4, normalize=False, checkpoint=str(tmp_path / 'a.pth')).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), before_the_classifier('', whole, images))
    torch.save(models.resnet34().state_dict(), tmp_path / 'b.pth')
    with pytest.raises(ValueError, match=r'depth.*layer1\.2'):
        Recognizer('resnet18', 4, checkpoint=str(tmp_path / 'b.pth'))


def test_pretrained_weights_come_without_auxiliary_classifiers(quick_weights, monkeypatch):
    whole = quick_weights(models.googlenet(init_weights=False, transform_input=True))
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url',
                        lambda *args, **kwargs: whole.state_dict())
    model = Recognizer('googlenet', 3, models.GoogLeNet_Weights.DEFAULT).train()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert not any('aux' in name for name in model.state_dict())


@pytest.mark.parametrize('options, error, says', [
    (dict(model_name='resnet81'), ValueError, 'resnet18'),
    (dict(model_name='squeezenet1_1'), ValueError, 'Unknown model of Recognizer'),
    (dict(model_name='resnet18', num_classes=0), ValueError, 'num_classes'),
    (dict(model_name='resnet18', num_classes='4'), TypeError, 'num_classes'),
    (dict(model_name='resnet18', temperature=0), ValueError, 'temperature'),
    (dict(model_name='resnet18', weights='IMAGENET'), ValueError, 'IMAGENET1K_V1'),
    (dict(model_name='resnet18', weights='DEFAULT', checkpoint='a'), ValueError, 'not both'),
])
def test_recognizer_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        Recognizer(**options)
