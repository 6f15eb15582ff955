"""Altered pictures of a dataset, encoded under the ids of their originals."""
import numpy as np
import torch

from retrieval.datasets import ImageFolder, ImageList
from retrieval.search.alterations import encode_altered

from .pictures import PIPELINE, picture, retriever, write


def test_the_seed_draws_the_pictures_and_alters_them(tmp_path):
    paths = [write(tmp_path / f'{seed}.png', seed) for seed in range(6)]
    pictures = ImageList(paths, pipeline=PIPELINE)
    model = retriever()
    found = encode_altered(model, pictures, 4, seed=3)
    again, other = (encode_altered(model, pictures, 4, seed=seed) for seed in (3, 4))
    assert len(found) == 4 and set(found.ids) <= set(pictures.sample_ids)
    rows = [pictures.sample_ids.index(name) for name in found.ids]
    assert rows == sorted(rows) == np.sort(np.random.default_rng(3).permutation(6)[:4]).tolist()
    assert torch.equal(found.embeddings, again.embeddings)
    assert list(other.ids) != list(found.ids) or not torch.equal(other.embeddings,
                                                                 found.embeddings)
    assert len(encode_altered(model, pictures, 99)) == 6
    inputs = torch.stack([pictures[row]['inputs'] for row in rows])
    plain = model.embed(model.data_preprocessor(dict(inputs=inputs))['inputs'])
    assert not any(torch.allclose(one, two) for one, two in
                   zip(found.embeddings, plain, strict=True)), 'they are to be altered'


def test_a_pipeline_that_does_not_load_first():
    pictures = ImageList([picture(seed) for seed in range(3)], pipeline=PIPELINE[1:])
    assert encode_altered(retriever(), pictures).embeddings.shape == (3, 16)


def test_what_cannot_be_read_is_listed(tmp_path):
    for seed in range(3):
        write(tmp_path / 'a' / f'{seed}.png', seed)
    (tmp_path / 'a' / '1.png').write_text('text')
    pictures = ImageFolder(tmp_path, pipeline=PIPELINE, on_unreadable='skip')
    found = encode_altered(retriever(), pictures)
    assert [name.rpartition('/')[2] for name in found.ids] == ['0.png', '2.png']
    assert [name.rpartition('/')[2] for name in found.skipped] == ['1.png']
