"""What is missing or malformed in a folder is one error that shows the tree."""
import os

import pytest

from retrieval.datasets.benchmarks.layout import (
    malformed,
    missing_files,
    read_numbers,
    read_rows,
    require,
    require_images,
)

from ..miniatures import write

TREE = """
somewhere/    <- data_root
├── list.txt
└── images/
"""


def test_what_is_there_is_returned_in_order(tmp_path):
    write(tmp_path / 'b' / 'list.txt', 'x')
    (tmp_path / 'images').mkdir()
    found = require(f'{tmp_path}//b/..', TREE, 'images/', ('a/list.txt', 'b/list.txt'))
    assert found == [str(tmp_path / 'images'), str(tmp_path / 'b' / 'list.txt')]


def test_the_first_of_several_names_wins(tmp_path):
    for folder in 'ab':
        write(tmp_path / folder / 'list.txt', 'x')
    assert require(tmp_path, TREE, ('b/list.txt', 'a/list.txt')) == [
        str(tmp_path / 'b' / 'list.txt')]


def test_all_that_is_missing_stands_in_one_error_with_the_tree(tmp_path):
    write(tmp_path / 'list.txt', 'x')
    with pytest.raises(FileNotFoundError) as error:
        require(tmp_path, TREE, 'list.txt', ('a.txt', 'b.txt'), 'images/')
    message = str(error.value)
    assert 'are missing: a.txt or b.txt, images/.' in message
    assert message.endswith(TREE.strip() + '\n')
    with pytest.raises(FileNotFoundError, match='is missing: images/'):
        require(tmp_path, TREE, 'list.txt', 'images/')


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    write(tmp_path / 'images', 'x')
    (tmp_path / 'list.txt').mkdir()
    with pytest.raises(FileNotFoundError, match='list.txt, images/'):
        require(tmp_path, TREE, 'list.txt', 'images/')


@pytest.mark.parametrize(('given', 'expected'), [
    ('', 'No data_root is given'), ('nowhere', "'nowhere' does not exist"),
    ('list.txt', "'list.txt' is a file")])
def test_the_root_itself(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'list.txt', 'x')
    with pytest.raises(FileNotFoundError, match=expected) as error:
        require(given, TREE, 'list.txt')
    assert 'somewhere/    <- data_root' in str(error.value)


@pytest.mark.parametrize('given', ['.', 'data/deeper'])
def test_a_folder_inside_or_above_that_has_all_is_named(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'data' / 'list.txt', 'x')
    (tmp_path / 'data' / 'deeper').mkdir()
    with pytest.raises(FileNotFoundError, match=r"in '.*data': give that as data_root"):
        require(given, TREE, 'list.txt')
    with pytest.raises(FileNotFoundError) as error:  # it has only a part
        require(given, TREE, 'list.txt', 'images/')
    assert 'give that' not in str(error.value)


def test_rows(tmp_path):
    path = str(write(tmp_path / 'a.txt', '2', 'name  number', 'a \t 1 ', '', 'b 2'))
    assert read_rows(path, TREE, 2, ('name', 'number'), counted=True) == [['a', '1'], ['b', '2']]
    path = str(write(tmp_path / 'b.txt', '\ufeff1 2.5', '3 -4'))
    assert read_numbers(path, TREE, 2) == [[1, 2.5], [3, -4]]


@pytest.mark.parametrize(('lines', 'expected'), [
    (('2', 'name', 'a 1', 'b 2'), "header must be 'name number', but it is 'name'"),
    (('2', 'name number', 'a 1', '', 'b'), "line 5 has 1 cells and not 2: 'b'"),
    (('3', 'name number', 'a 1', 'b 2'), "number of rows, 2, but it is '3'"),
    (('name number', 'a 1'), 'header must be'),
    (('1', 'name number'), 'lists nothing'),
    (('',), 'header must be')])
def test_malformed_rows(tmp_path, lines, expected):
    path = str(write(tmp_path / 'a.txt', *lines))
    with pytest.raises(ValueError, match=expected) as error:
        read_rows(path, TREE, 2, ('name', 'number'), counted=True)
    assert repr(path) in str(error.value) and TREE.strip() in str(error.value)


@pytest.mark.parametrize(('line', 'expected'), [('1 x', "'x'"), ('1 nan', 'not finite'),
                                                ('1 inf', 'not finite')])
def test_malformed_numbers(tmp_path, line, expected):
    with pytest.raises(ValueError, match=expected):
        read_numbers(str(write(tmp_path / 'a.txt', '0 1', line)), TREE, 2)


def test_what_is_no_text(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='no text in UTF-8'):
        read_rows(str(tmp_path / 'a.txt'), TREE, 1)


def test_missing_files_agree_with_a_plain_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'top.jpg'):
        write(tmp_path / name, 'x')
    (tmp_path / 'linked').symlink_to(tmp_path / 'a')
    (tmp_path / 'broken').symlink_to(tmp_path / 'gone')
    (tmp_path / 'a' / '4.jpg').symlink_to(tmp_path / 'a' / '1.jpg')
    (tmp_path / 'a' / '5.jpg').symlink_to(tmp_path / 'gone.jpg')
    (tmp_path / 'a' / '6.jpg').mkdir()
    names = ['a/1.jpg', 'a/3.jpg', 'a/4.jpg', 'a/5.jpg', 'a/6.jpg', 'b/../a/2.jpg', 'c/1.jpg',
             'linked/1.jpg', 'linked/9.jpg', 'broken/1.jpg', 'top.jpg', 'none.jpg', 'a/3.jpg']
    assert missing_files(names) == [name for name in names if not os.path.isfile(name)]


def test_images_that_are_not_there_are_counted_and_the_first_is_named(tmp_path):
    path = write(tmp_path / 'a.jpg', 'x')
    require_images('list.txt', TREE, [str(path)])
    with pytest.raises(FileNotFoundError) as error:
        require_images('list.txt', TREE, [str(path), 'x/1.jpg', 'x/2.jpg'])
    message = str(error.value)
    assert "'list.txt' names 3 images, of which 2 are not there; the first is 'x/1.jpg'" in message
    assert 'check_files=False' in message and TREE.strip() in message


def test_malformed_is_for_raising():
    assert isinstance(malformed('a.txt', TREE, 'why.'), ValueError)
