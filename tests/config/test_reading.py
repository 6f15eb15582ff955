import ast
import os
from pathlib import Path

import pytest
from mmengine.config import Config

from retrieval.config.reading import expand_home, layout, read_config

SHIPPED = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('text, line, says', [
    ('a = 1\nb = undefined\n', 2, "NameError: name 'undefined'"),
    ('a = [1]\n\nb = a[5]', 3, 'IndexError'),
    ('a = [1\nb = 2', 1, r"SyntaxError: '\[' was never closed"),
    ('a = dict(b=1, b=2)', 1, 'SyntaxError: keyword argument repeated'),
    ('a = 1 / 0', 1, 'ZeroDivisionError'),
    ("def f():\n    return {}['k']\na = f()", 2, "KeyError: 'k'"),
    ("_base_ = './good.py'\nb = {{_base_.nope}}", 2, "no base has 'nope'"),
    ("_base_ = './good.py'\nb = _base_.nope.x", 2, "no attribute 'nope'"),
    ("_base_ = './good.py'\nc = 1\nlr = dict(a=1)", 3, 'cannot inherit from base'),
    ("_base_ = ['./good.py', './good2.py']", 1, 'Duplicate key'),
    ("from mmengine.config import read_base\nwith read_base():\n    from .good import *\n"
     'z = nope', 4, "NameError: name 'nope'")])
def test_a_mistake_is_one_message_with_its_line(text, line, says, tmp_path):
    for name in ('good.py', 'good2.py'):
        (tmp_path / name).write_text('lr = 1\n')
    file = tmp_path / 'mine.py'
    file.write_text(text)
    with pytest.raises(ValueError, match=f'mine.py\', line {line}: .*{says}') as caught:
        read_config(file)
    assert text.splitlines()[line - 1].strip() in str(caught.value)


def test_a_mistake_of_a_base_names_the_base(tmp_path):
    (tmp_path / 'below.py').write_text('\nx = undefined\n')
    (tmp_path / 'mine.py').write_text("_base_ = './below.py'\n")
    with pytest.raises(ValueError, match="below.py', line 2: NameError"):
        read_config(tmp_path / 'mine.py')


def test_what_is_missing_is_named_with_the_nearest(tmp_path):
    (tmp_path / 'resnet50_gem.py').write_text('a = 1')
    (tmp_path / 'mine.py').write_text("a = 1\n_base_ = './resnet50_gm.py'\n")
    with pytest.raises(FileNotFoundError, match="mine.py', line 2: .*Did you mean .*50_gem.py'"):
        read_config(tmp_path / 'mine.py')
    with pytest.raises(FileNotFoundError, match='no config .*Did you mean .*resnet50_gem.py'):
        read_config(tmp_path / 'resnet50gem.py')
    with pytest.raises(FileNotFoundError, match='Did you mean .*resnet50-ms_20e_csv'):
        read_config('resnet50-ms_20e_cvs.py')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        read_config(tmp_path)
    (tmp_path / 'imports.py').write_text(
        "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)")
    with pytest.raises(ImportError, match="imports.py', line 1: .*no_such_module.*PYTHONPATH"):
        read_config(tmp_path / 'imports.py')


def test_a_home_is_found_at_any_depth():
    home = os.path.expanduser('~')
    config = expand_home(Config(dict(a='~/x', b=[dict(c=('~', 'x/~'))], d='~5 classes')))
    assert config.to_dict() == dict(a=f'{home}/x', b=[dict(c=(home, 'x/~'))], d='~5 classes')


def test_the_text_gives_the_config_back(tmp_path):
    config = read_config(SHIPPED / 'bnneck' / 'resnet50-bnneck_120e_market1501.py')
    text = config.pretty_text
    assert max(map(len, text.splitlines())) <= 100 and text == layout(text)
    file = tmp_path / 'again.py'
    config.dump(file)
    assert read_config(file).to_dict() == config.to_dict()
    ast.parse(layout("a = {'x y': 1, 3: [" + '"long", ' * 30 + ']}'))
