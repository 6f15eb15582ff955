"""One loss among those of a head: its part of the config, and how it is called."""
from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor, nn

from .classification_head import ClassificationHead
from .extra import refuses, taken_extra
from .gathering import Batch
from .limits import Limits, limits_of
from .positives import needs_positives


class Form(Enum):
    """What a loss is given."""

    CLASSES = 'embeddings and their classes'
    CLASSIFIER = 'embeddings and their classes, as a ClassificationHead is'
    VIEWS = 'two views of the same samples, row by row'
    EMBEDDINGS = 'embeddings alone'


LABELLED = (Form.CLASSES, Form.CLASSIFIER)


class Term(NamedTuple):
    """What is known of a loss as soon as it is built.

    Args:
        form: what it is given.
        taken: what else it takes, names of :data:`retrieval.heads.extra.NAMES`.
        limits: the classes, widths and batches that it can take.
        needs_positives: whether a batch without two samples of a class teaches it nothing.
    """

    form: Form
    taken: frozenset[str]
    limits: Limits
    needs_positives: bool


def describe(loss: nn.Module, miner: nn.Module | None) -> Term:
    """The term of a loss.

    Raises:
        ValueError: it compares two sets of embeddings (a distance), or it has a miner and takes no
            indices.
    """
    form = _form_of(loss)
    if miner is not None and not _takes_indices(loss, form):
        raise ValueError(f'{type(loss).__name__} takes no indices, so the miner '
                         f'{type(miner).__name__} cannot choose for it: leave the miner out.')
    classes = form is Form.CLASSES
    return Term(form, frozenset(taken_extra(loss) if classes else ()), limits_of(loss),
                classes and needs_positives(loss))


def _form_of(loss: nn.Module) -> Form:
    if isinstance(loss, ClassificationHead):
        return Form.CLASSIFIER
    taken = inspect.signature(loss.forward).parameters
    if 'labels' in taken and refuses(loss, 'labels'):
        return Form.EMBEDDINGS if refuses(loss, 'ref') else Form.VIEWS
    if 'ref_emb' in taken and 'labels' not in taken:
        if 'embeddings' in taken:
            return Form.VIEWS
        raise ValueError(f'{type(loss).__name__} takes ({", ".join(taken)}), and MetricHead gives '
                         'embeddings and labels: name a loss of those, not a distance.')
    return Form.CLASSES


def _takes_indices(loss: nn.Module, form: Form) -> bool:
    parameters = inspect.signature(loss.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    several = len(positional) > 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return form is Form.CLASSES and several and not refuses(loss, 'indices_tuple')


def call(loss: nn.Module, term: Term, batch: Batch, indices: Any = None) -> Tensor:
    """The value of a loss, a scalar.

    Raises:
        ValueError: it compares two views, and there are not two.
    """
    if isinstance(loss, ClassificationHead):
        return loss.value(batch.embeddings, batch.labels) * loss.loss_weight
    if term.form is Form.EMBEDDINGS:
        return loss(batch.embeddings)
    if term.form is Form.VIEWS:
        if batch.views != 2:
            raise ValueError(f'{type(loss).__name__} compares two views of the same samples, and '
                             f'there are {batch.views}: the encoder must return a list of two.')
        first, second = batch.embeddings.chunk(2)
        return loss(first, ref_emb=second)
    extra = {name: value for name, value in batch.extra.items() if name in term.taken}
    mined = () if indices is None else (indices,)
    return loss(batch.embeddings, batch.labels, *mined, **extra)


def mine(miner: nn.Module, batch: Batch) -> Any:
    """The indices that a miner chooses, among the reference set where there is one."""
    reference = {name: batch.extra[name] for name in ('ref_emb', 'ref_labels')
                 if name in batch.extra}
    return miner(batch.embeddings, batch.labels, **reference)


def count_mined(indices: Any) -> dict[str, int]:
    """How much a miner found, from its indices of triplets or of pairs."""
    if isinstance(indices, (tuple, list)) and len(indices) == 3:
        return {'mined_triplets': len(indices[0])}
    if isinstance(indices, (tuple, list)) and len(indices) == 4:
        return {'mined_positives': len(indices[0]), 'mined_negatives': len(indices[2])}
    return {}


def split(config: Any) -> tuple[Any, dict[str, Any]]:
    """The loss's own config, and what of it is for the head."""
    if not isinstance(config, Mapping):
        return config, {}
    if 'type' not in config:
        raise ValueError(f'The loss has no type, it has only {sorted(config)}: give '
                         "dict(type='PML.…', …).")
    taken = {'name', 'loss_weight'}
    if 'miner' in config and not _takes_miner(config['type']):
        taken.add('miner')
    return ({key: value for key, value in config.items() if key not in taken},
            {key: config[key] for key in taken & set(config)})


def _takes_miner(kind: Any) -> bool:
    from .pml import resolve  # late: it imports the library
    return 'miner' in inspect.signature(resolve(kind)).parameters


def build(config: Any, what: str) -> nn.Module:
    """A loss or miner from its config; a module as it is.

    Raises:
        ValueError: it names no type, or an unknown one.
        TypeError: it is neither config nor module.
    """
    if isinstance(config, Mapping):
        if 'type' not in config:
            raise ValueError(f"The {what} has no type: give dict(type='PML.…', …).")
        from .pml import build_component  # late: it imports the library

        config = build_component(config)
    if not isinstance(config, nn.Module):
        raise TypeError(f"{what} must be a config such as dict(type='PML.…', …) or a module, got "
                        f'{type(config).__name__}.')
    return config


def name_of(loss: nn.Module) -> str:
    """``MultiSimilarityLoss -> multi_similarity``."""
    name = type(loss).__name__.removesuffix('Loss').removesuffix('Head') or 'loss'
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()
