"""Queries that are composed: words and pictures, each added or taken away with a weight."""
from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..similarity import normalize


@dataclass(frozen=True)
class QueryPart:
    """A part of a query: words or a picture.

    Args:
        text: words.
        image: a path, an array ``(H, W, C)`` uint8 or a Pillow image.
        weight: what the part's embedding, at length 1, is multiplied by before the parts are
            added; below 0 for what is not wanted.

    Raises:
        ValueError: it is both or neither, or the weight is 0 or no finite number.
        TypeError: the text is no text.

    Example:
        >>> QueryPart(text='a red bicycle').name, QueryPart(image='a.png', weight=-.5).name
        ('"a red bicycle"', 'a.png')
    """

    text: str | None = None
    image: Any = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise ValueError('A part of a query is words or a picture: give one of text and '
                             'image.')
        if self.text is not None and not isinstance(self.text, str):
            raise TypeError(f'The text of a query is words, got {type(self.text).__name__}.')
        if not (isinstance(self.weight, (int, float)) and math.isfinite(self.weight)
                and self.weight):
            raise ValueError(f'The weight of a part of a query is a number, and not 0; got '
                             f'{self.weight!r}.')

    @classmethod
    def of(cls, given: QueryPart | Mapping[str, Any]) -> QueryPart:
        """A part as it is, or from a dict of its fields.

        Raises:
            TypeError: it is something else, or has other keys.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping) or set(given) - {'text', 'image', 'weight'}:
            raise TypeError('A part of a query is a dict with text or image, and a weight; got '
                            f'{given!r}.')
        return cls(**given)

    @property
    def name(self) -> str:
        """What it is called in answers, without its weight."""
        if self.text is not None:
            return f'"{self.text}"'
        return os.fspath(self.image) if isinstance(self.image, (str, os.PathLike)) else 'a picture'


def name_of(parts: Sequence[QueryPart]) -> str:
    """A composed query in words; one picture alone is called by its path.

    Example:
        >>> name_of([QueryPart(image='a.png'), QueryPart(text='snow', weight=-.5)])
        'a.png - 0.5 "snow"'
    """
    written = ''
    for part in parts:
        factor = '' if abs(part.weight) == 1 else f'{abs(part.weight):g} '
        sign = '-' if part.weight < 0 else '+'
        lead = f' {sign} ' if written else '- ' if part.weight < 0 else ''
        written += f'{lead}{factor}{part.name}'
    return written


def sum_of(parts: Sequence[QueryPart], embeddings: Tensor) -> Tensor:
    """The embedding ``(D,)`` of a query whose parts have embeddings ``(n, D)``.

    One part that is added is itself; of several, each has length 1 before it is weighted.

    Raises:
        ValueError: the parts take each other away.

    Example:
        >>> parts = [QueryPart(text='a'), QueryPart(text='b', weight=-1)]
        >>> sum_of(parts, torch.tensor([[2., 0.], [0., 3.]]))
        tensor([ 1., -1.])
    """
    if len(parts) == 1 and parts[0].weight > 0:
        return embeddings[0]
    weights = torch.tensor([part.weight for part in parts], device=embeddings.device)
    found = (weights[:, None] * normalize(embeddings.float())).sum(0)
    if float(found.norm()) < 1e-6:
        raise ValueError(f'The parts of the query {name_of(parts)} take each other away: nothing '
                         'is left to search for.')
    return found


def weighted(given: str, sign: float = 1.0) -> tuple[float, str]:
    """The weight of a part as the command line writes it, ``[WEIGHT:]QUERY``, and the rest.

    Example:
        >>> weighted('0.5:snow', -1), weighted('snow')
        ((-0.5, 'snow'), (1.0, 'snow'))
    """
    found = re.match(r'(\d+(?:\.\d*)?|\.\d+):(.+)', given, re.DOTALL)
    return (sign * float(found[1]), found[2]) if found else (sign, given)
