"""Finding and replacing the last layer of a classifier."""
from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def get_path_to_ultimate_classifier(model: nn.Module) -> list[str]:
    """The path to a model's last linear layer, as a list of attribute names.

    Args:
        model: it is a ``Linear`` itself (the path is empty), or its last child is one, or its last
            child is a ``Sequential`` that ends in one.

    Raises:
        ValueError: the model ends otherwise.
    """
    path: list[str] = []
    layer = model
    for _ in range(2):
        children = list(layer.named_children())
        if isinstance(layer, nn.Linear) or not children:
            break
        if path and not isinstance(layer, nn.Sequential):
            break
        name, layer = children[-1]
        path.append(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f'{type(model).__name__} does not end in a linear layer, nor in a '
                         f'Sequential that does: its last layer is {type(layer).__name__}. Take a '
                         'model whose last child is the classifier.')
    return path


def get_ultimate_classifier(model: nn.Module) -> nn.Linear:
    """A model's last linear layer.

    Raises:
        ValueError: the model does not end in one; see :func:`get_path_to_ultimate_classifier`.
    """
    layer = get_module_at_path(model, get_path_to_ultimate_classifier(model))
    assert isinstance(layer, nn.Linear)
    return layer


def get_module_at_path(model: nn.Module, path: Sequence[str]) -> nn.Module:
    """The module at a path.

    Args:
        model: where the path begins.
        path: attribute names, one a level; the empty path is the model itself.

    Raises:
        TypeError: the path is no list of strings.
        ValueError: there is no module of that name.
    """
    _check_path(path)
    module = model
    for depth, name in enumerate(path):
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            at = '.'.join(path[:depth]) or type(model).__name__
            names = ', '.join(name for name, _ in module.named_children()) or 'no modules'
            raise ValueError(f'There is no module {name!r} in {at}, of the path {list(path)}; it '
                             f'has {names}.')
        module = child
    return module


def set_module_at_path(model: nn.Module, path: Sequence[str], new_module: nn.Module) -> None:
    """Put another module in the place of the one at a path, in place.

    Args:
        model: where the path begins.
        path: attribute names, one a level.
        new_module: what is put there.

    Raises:
        TypeError: the path is no list of strings, or ``new_module`` no module.
        ValueError: there is no module at the path, or the path is empty: a model cannot be
            replaced from within.
    """
    _check_path(path)
    if not isinstance(new_module, nn.Module):
        raise TypeError(f'new_module must be a module, got {type(new_module).__name__}.')
    if not path:
        raise ValueError('The empty path is the model itself, which cannot be replaced in place: '
                         'use the new module instead of it.')
    get_module_at_path(model, path)
    setattr(get_module_at_path(model, path[:-1]), path[-1], new_module)


def update_classifier(model: nn.Module, num_classes: int, bias: bool = False) -> nn.Module:
    """Put a new classifier in the place of a model's last linear layer, in place.

    Args:
        model: see :func:`get_path_to_ultimate_classifier`.
        num_classes: how many logits the new one gives.
        bias: whether it has a bias.

    Returns:
        The model; one that is a ``Linear`` itself gets another size and other weights.

    Raises:
        ValueError: the model does not end in a linear layer, or ``num_classes`` is below 1.
        TypeError: ``num_classes`` is no integer.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool):
        raise TypeError(f'num_classes must be an integer, got {num_classes!r}.')
    if num_classes < 1:
        raise ValueError(f'num_classes must be at least 1, got {num_classes}.')
    path = get_path_to_ultimate_classifier(model)
    old = get_ultimate_classifier(model)
    new = nn.Linear(old.in_features, num_classes, bias=bias, device=old.weight.device,
                    dtype=old.weight.dtype).train(old.training)
    if path:
        set_module_at_path(model, path, new)
    else:
        old.weight, old.bias, old.out_features = new.weight, new.bias, num_classes
    return model


def split_backbone_classifier(model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """A model's backbone and its classifier.

    Args:
        model: see :func:`get_path_to_ultimate_classifier`; it is edited.

    Returns:
        The model with an ``Identity`` in the classifier's place, and the classifier. Where the
        model is a ``Linear`` itself the backbone is a bare ``Identity``.

    Raises:
        ValueError: the model does not end in a linear layer.
    """
    path = get_path_to_ultimate_classifier(model)
    classifier = get_ultimate_classifier(model)
    if not path:
        return nn.Identity(), classifier
    set_module_at_path(model, path, nn.Identity())
    return model, classifier


def _check_path(path: Sequence[str]) -> None:
    if not isinstance(path, (list, tuple)) or not all(isinstance(name, str) for name in path):
        raise TypeError("A path is a list of attribute names, as ['classifier', '1'], got "
                        f'{path!r}.')
