"""Results that are checked by local features."""
import os

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.gallery import Gallery
from retrieval.image_files import UnreadableImageError
from retrieval.rerank import LocalRerank, rerank

from ..scenes import scene

PICTURES = [scene(seed, 300, 240) for seed in range(4)]
VECTORS = torch.eye(4)
QUERY = [[1, .8, .6, .4]]  # by the vectors the rows stand in their order


def search(query, pictures=PICTURES, k=None, gallery=VECTORS, **options):
    return rerank(QUERY, gallery, LocalRerank(**options), k, query_pictures=[query],
                  pictures=pictures)


def test_what_the_query_lies_in_comes_first_with_its_box():
    found = search(PICTURES[2][60:200, 90:270])
    assert found.indices.tolist() == [[2, 0, 1, 3]]
    match = found.matches[0][0]
    assert match.box == pytest.approx((.3, .25, .6, 140 / 240), abs=0.02)
    assert found.matches[0][1:] == [None] * 3
    plain = rerank(QUERY, VECTORS, [])
    assert found.scores[0, 0] == pytest.approx(1 + match.inliers / (match.inliers + 50))
    assert found.scores[0, 1:].tolist() == plain.scores[0, [0, 1, 3]].tolist()


def test_the_mirror_image_is_looked_for_unless_it_is_not_wanted():
    mirrored = PICTURES[3][:, ::-1]
    assert search(mirrored).matches[0][0].mirrored
    assert search(mirrored, mirror=False).indices[0, 0] == 0


def test_only_the_first_are_checked():
    assert search(PICTURES[2], first=2).indices[0, 0] == 0
    assert search(PICTURES[2], k=1).indices.tolist() == [[2]], 'it looks beyond k'


def test_rows_without_a_picture_keep_their_place():
    class Broken(list):
        def __getitem__(self, row):
            if row == 0:
                raise UnreadableImageError('cut off')
            return super().__getitem__(row)
    found = search(PICTURES[3], Broken([None, None, PICTURES[2], PICTURES[3]]))
    assert found.indices.tolist() == [[3, 0, 1, 2]]
    assert search(None).indices.tolist() == [[0, 1, 2, 3]]


def test_features_of_the_gallery_are_found_once_and_not_without_end():
    read = []

    class Counted(list):
        def __getitem__(self, row):
            read.append(row)
            return super().__getitem__(row)
    gallery, pictures = Gallery(VECTORS), Counted(PICTURES)
    for _ in range(2):
        search(PICTURES[0], pictures, gallery=gallery)
    assert sorted(read) == [0, 1, 2, 3]
    other = Gallery(VECTORS)  # another gallery has other pictures
    for _ in range(2):
        search(PICTURES[0], pictures, gallery=other, cache=1, mirror=False)
    assert len(read) >= 4 + 4 + 3


def test_features_are_kept_in_a_file_until_a_picture_changes(tmp_path):
    names = [str(tmp_path / f'{number}.png') for number in range(4)]
    for name, picture in zip(names[:3], PICTURES, strict=False):  # the last has no file
        Image.fromarray(picture).save(name)
    read = []

    class Counted(list):
        def __getitem__(self, row):
            read.append(row)
            return super().__getitem__(row)

    def found():
        read.clear()
        return search(PICTURES[1][40:200, 60:280], Counted(PICTURES), kept=tmp_path / 'kept.sqlite',
                      gallery=Gallery(VECTORS, names)), sorted(read)
    first, was_read = found()
    assert was_read == [0, 1, 2, 3] and first.indices[0, 0] == 1
    again, was_read = found()
    assert was_read == [3]
    assert torch.equal(again.scores, first.scores) and again.matches[0][0].box == \
        first.matches[0][0].box
    os.utime(names[1], ns=(0, 0))
    assert found()[1] == [1, 3] and found()[1] == [3]


def test_a_picture_that_changed_is_read_again_in_memory_too(tmp_path):
    names = [str(tmp_path / f'{number}.png') for number in range(4)]
    for name, picture in zip(names, PICTURES, strict=True):
        Image.fromarray(picture).save(name)
    gallery, pictures = Gallery(VECTORS, names), list(PICTURES)
    assert search(PICTURES[1], pictures, gallery=gallery).indices[0, 0] == 1
    pictures[1], pictures[3] = pictures[3], pictures[1]
    for row in (1, 3):
        Image.fromarray(pictures[row]).save(names[row])
        os.utime(names[row], ns=(row, row))
    assert search(PICTURES[1], pictures, gallery=gallery).indices[0, 0] == 3


def test_vectors_alone_are_refused():
    with pytest.raises(ValueError, match='give rerank.. query_pictures'):
        rerank(QUERY, VECTORS, LocalRerank())
    with pytest.raises(ValueError, match='first'):
        LocalRerank(first=0)
    assert np.isfinite(search(PICTURES[1]).scores.numpy()).all()
