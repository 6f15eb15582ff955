from pytorch_metric_learning import losses

from retrieval.arguments import arguments, takes_any
from retrieval.registry import MODELS, PML, TRANSFORMS


def plain(size, *, colour='red'):
    ...


class Base:
    def __init__(self, depth=1, **kwargs):
        self.width = kwargs.pop('width', 3)


class Thing(Base):
    def __init__(self, name, **kwargs):
        super().__init__(**kwargs)


class Other(Base):
    def __init__(self, **options):
        plain(**options)


class Keeps(Base):
    def __init__(self, depth=2, **kwargs):
        self.kwargs = kwargs


def test_what_is_handed_on_counts():
    assert list(arguments(plain)) == ['size', 'colour']
    assert list(arguments(Thing)) == ['name', 'depth', 'width']
    assert list(arguments(Other)) == ['size', 'colour']
    assert not any(map(takes_any, map(arguments, (plain, Thing, Other))))


def test_what_is_kept_may_be_anything():
    assert list(arguments(Keeps)) == ['depth', 'kwargs'] and takes_any(arguments(Keeps))


def test_arguments_of_the_library_are_those_of_the_class_and_its_bases():
    assert list(arguments(losses.ArcFaceLoss))[:4] == ['num_classes', 'embedding_size', 'margin',
                                                       'scale']
    assert {'weight_regularizer', 'embedding_regularizer', 'distance', 'reducer',
            'weight_init_func'} <= set(arguments(losses.ArcFaceLoss))
    assert 'distance' not in arguments(losses.MultipleLosses)


def test_factories_and_wrappers_have_those_of_what_they_build():
    assert arguments(PML.get('ArcFaceLoss')) == arguments(losses.ArcFaceLoss)
    assert 'num_ops' in arguments(TRANSFORMS.get('torchvision/RandAugment'))
    assert takes_any(arguments(MODELS.get('TimmBackbone')))
    retriever = arguments(MODELS.get('SelfSupervisedRetriever'))
    assert {'projector', 'topk', 'index'} <= set(retriever) and not takes_any(retriever)
