"""Parts outlive a kill, and come together in the order of the dataset."""
import pytest
import torch

from retrieval.gallery import Fingerprint, FingerprintError
from retrieval.retrievers.encode import Encoded
from retrieval.retrievers.encoded_parts import PartsFolder, assemble, missing_rows, rows_of

MADE = Fingerprint('w', 'p', 't')
KEYS = [f'image{row}' for row in range(12)]
ROW_OF = {key: row for row, key in enumerate(KEYS)}


def made_folder(tmp_path):
    folder = PartsFolder(tmp_path / 'x.parts')
    folder.path.mkdir()
    return folder


def encoded(rows, labels=True, skipped=()):
    made = Encoded()
    made.rows, made.ids = list(rows), [KEYS[row] for row in rows]
    made.embeddings = [torch.tensor([[row, -row, 1.0]]) for row in rows]
    made.labels = [row % 3 if labels else None for row in rows]
    made.skipped = {KEYS[row]: 'cut' for row in skipped}
    return made


def write(folder, *parts, **kwargs):
    for rows in parts:
        folder.write(encoded(rows, **kwargs), [KEYS[row] for row in rows])


def test_parts_are_put_into_the_order_of_the_dataset(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [4, 5, 9], [0, 1, 2, 3], [11, 6], [6, 4])  # two of them twice
    assert rows_of(folder.parts(), ROW_OF).tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 11]
    whole = assemble(list(folder.parts()), ROW_OF)
    assert whole.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 11]
    assert whole.vectors.decoded()[:, 0].tolist() == whole.rows.tolist()
    assert list(whole.ids) == [KEYS[row] for row in whole.rows]
    assert whole.labels.tolist() == [row % 3 for row in whole.rows]
    assert missing_rows(whole, KEYS) == ['image7', 'image8', 'image10']


def test_images_that_could_not_be_read(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1], skipped=[2, 3])
    write(folder, [], skipped=[4])
    write(folder, [3])  # it could be read when it was tried again
    whole = assemble(list(folder.parts()), ROW_OF)
    assert whole.skipped == {'image2': 'cut', 'image4': 'cut'}
    assert whole.rows.tolist() == [0, 1, 3]
    assert missing_rows(whole, KEYS[:6]) == ['image5']


def test_a_dataset_that_changed(tmp_path):
    """Rows are known by their ids: images that left it are dropped, others move."""
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1, 2], [5, 6])
    row_of = {'image6': 0, 'new': 1, 'image1': 2, 'image5': 3}
    assert rows_of(folder.parts(), row_of).tolist() == [0, 2, 3]
    whole = assemble(list(folder.parts()), row_of)
    assert list(whole.ids) == ['image6', 'image1', 'image5'] and whole.rows.tolist() == [0, 2, 3]
    assert whole.vectors.decoded()[:, 0].tolist() == [6, 1, 5]


def test_labels_only_where_all_have_them(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    write(folder, [2], labels=False)
    assert assemble(list(folder.parts()), ROW_OF).labels is None
    with pytest.raises(ValueError, match='is empty'):
        assemble([], ROW_OF)


def test_damaged_and_unfinished_parts_count_as_not_encoded(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    first, = folder.path.glob('part-*')
    write(folder, [2, 3])
    data = bytearray(first.read_bytes())
    data[-300] ^= 1
    first.write_bytes(data)
    (folder.path / '.part-x.safetensors.123').write_bytes(b'half')
    (tmp_path / '.x.abcdefgh').write_bytes(b'half')
    (tmp_path / '.y.abcdefgh').write_bytes(b'of another file')
    folder.begin(MADE, True)
    assert rows_of(folder.parts(), ROW_OF).tolist() == [2, 3]
    assert not first.exists() and len(list(folder.path.iterdir())) == 2
    assert not (tmp_path / '.x.abcdefgh').exists() and (tmp_path / '.y.abcdefgh').exists()


def test_another_model_does_not_go_on(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    with pytest.raises(FingerprintError, match=r"x\.parts.*weights and the test pipeline differ.*"
                       '--no-resume'):
        folder.begin(Fingerprint('W', 'p', 'T'), True)
    assert rows_of(folder.parts(), ROW_OF).tolist() == [0, 1]
    folder.begin(Fingerprint('W', 'p', 'T'), False)
    assert len(rows_of(folder.parts(), ROW_OF)) == 0
    (folder.path / 'dump.json').write_text('[')
    with pytest.raises(ValueError, match='damaged'):
        folder.begin(MADE, True)
    write(folder, [0])
    (folder.path / 'dump.json').unlink()  # a removal that did not come to its end
    folder.begin(MADE, True)
    assert len(rows_of(folder.parts(), ROW_OF)) == 0
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


def test_two_dumps_do_not_write_into_one_folder(tmp_path):
    with PartsFolder(tmp_path / 'x.parts').locked(), \
            pytest.raises(TimeoutError, match=r"writing to .*x\.parts"), \
            PartsFolder(tmp_path / 'x.parts').locked():
        pass


def test_other_settings_of_the_encoder_count_where_they_are_given(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True, 'settings')
    write(folder, [0, 1])
    folder.begin(MADE, True, 'settings', refuse=False)
    assert rows_of(folder.parts(), ROW_OF).tolist() == [0, 1]
    with pytest.raises(FingerprintError, match="encoder's settings differ"):
        folder.begin(MADE, True, 'others')
    folder.begin(MADE, True, 'others', refuse=False)
    assert not list(folder.parts())
    write(folder, [2])
    (folder.path / 'dump.json').write_text('[')
    folder.begin(MADE, True, 'others', refuse=False)
    assert not list(folder.parts())
