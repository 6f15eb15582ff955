import pytest
import torch
from torch import nn

from retrieval.encoders import ImageEncoder
from retrieval.retrievers import ImageToImageRetriever
from retrieval.retrievers.checkpoint import (
    check_backbone,
    check_encoder,
    check_model,
    read_state_dict,
)


def retriever(blocks=2, width=8, projection=4, classes=3):
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, width),
                             *(nn.Linear(width, width) for _ in range(blocks)))
    encoder = ImageEncoder(backbone, pooling=None, projection=projection, in_features=width)
    head = dict(type='ClassificationHead', num_classes=classes, in_features=projection)
    return ImageToImageRetriever(encoder, torch.zeros(2, projection), head)


def saved(model, path, change=lambda name: name):
    torch.save(dict(state_dict={change(name): value for name, value in
                                model.state_dict().items()}, meta={}), path)
    return str(path)


CHECKS = (check_backbone, check_encoder, check_model)


@pytest.mark.parametrize('other, refusing, says', [
    (dict(), (), ''),
    (dict(classes=5), (check_model,), 'number of classes: 5 there and 3 here'),
    (dict(projection=6), (check_encoder, check_model), 'another width'),
    (dict(blocks=3), CHECKS, r'has blocks.*image_encoder.backbone.4'),
    (dict(blocks=1), CHECKS, r'lacks blocks.*image_encoder.backbone.3'),
    (dict(width=6), CHECKS, 'another width of the architecture'),
])
def test_what_must_fit(other, refusing, says, tmp_path):
    path = saved(retriever(**other), tmp_path / 'a.pth')
    for check in CHECKS:
        if check in refusing:
            with pytest.raises(ValueError, match=f'a.pth.*Missing.*Unexpected.*{says}'):
                check(retriever(), read_state_dict(path), path)
        else:
            check(retriever(), read_state_dict(path), path)


@pytest.mark.parametrize('change, says', [
    (lambda name: f'ema.{name}', "begin with 'ema.'"),
    (lambda name: f'other_{name.replace(".", "_")}', 'another architecture'),
])
def test_the_likely_cause_of_other_names(change, says, tmp_path):
    path = saved(retriever(), tmp_path / 'a.pth', change)
    with pytest.raises(ValueError, match=says):
        check_encoder(retriever(), read_state_dict(path), path)


def test_a_file_of_the_backbone_alone(tmp_path):
    torch.save(retriever().image_encoder.backbone.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="image_encoder.backbone' alone"):
        check_encoder(retriever(), read_state_dict(tmp_path / 'a.pth'), 'a.pth')


def test_training_may_start_from_another_projection_and_head(tmp_path):
    source, target = retriever(projection=6, classes=5), retriever()
    target = ImageToImageRetriever(target.image_encoder, torch.zeros(2, 4), target.head,
                                   pretrained=saved(source, tmp_path / 'a.pth'))
    assert torch.equal(target.image_encoder.backbone[1].weight,
                       source.image_encoder.backbone[1].weight)
    with pytest.raises(ValueError, match='depth'):
        ImageToImageRetriever(retriever(blocks=3).image_encoder, torch.zeros(2, 4),
                              pretrained=str(tmp_path / 'a.pth'))
