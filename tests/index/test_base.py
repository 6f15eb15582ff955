"""What indexes share."""
from __future__ import annotations

import torch

from retrieval.index.base import gallery_digest


def test_a_digest_is_of_every_number_and_every_id(monkeypatch):
    vectors, ids = torch.eye(5), list('abcde')
    known = {gallery_digest(vectors, ids)}
    for row in range(5):
        other = vectors.clone()
        other[row, 2] += 1
        known |= {gallery_digest(other, ids), gallery_digest(vectors, [*ids[:row], 'x',
                                                                       *ids[row + 1:]])}
    assert len(known) == 11
    monkeypatch.setattr('retrieval.index.base._BLOCK', 2)
    assert gallery_digest(vectors.double(), ids) in known
