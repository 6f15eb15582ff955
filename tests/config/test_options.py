import argparse

import pytest

from retrieval.config.options import ReadOptions, merge_options, read_value


@pytest.mark.parametrize('typed, meant', [
    ("'007'", '007'), ('007', '007'), ('2024_01_15', '2024_01_15'), ('1_12', '1_12'),
    ('+5', '+5'), ('٣', '٣'), ('12', 12), ('-3', -3), ('0.10', 0.1), ('1e-3', 1e-3), ('1.', 1.0),
    ('inf', float('inf')), ('True', True), ('false', False), ('None', None), ('null', 'null'),
    ('/data/my pictures/new', '/data/my pictures/new'), (' a b ', ' a b '), ('', ''), ("''", ''),
    ("'a, b'", 'a, b'), ('"it\'s"', "it's"), ("it's", "it's"), ("it's, two", ["it's", 'two']),
    ('a,b', ['a', 'b']), ('8, 16', [8, 16]), ('[a,b]', ['a', 'b']), ('(1,)', (1,)), ('[]', []),
    ("['a, b', \"c\"]", ['a, b', 'c']), ('[(1,2),[3]]', [(1, 2), [3]]), ('(old) x', '(old) x'),
    ('path/(old), x', ['path/(old)', 'x']), ('http://x:3/y', 'http://x:3/y'),
    ("{'a': 1, b: [x, 'y z']}", {'a': 1, 'b': ['x', 'y z']}), ('{}', {}), ('{0: 1}', {0: 1}),
    ("dict(type='GeM', p=3, q=dict(a=1))", dict(type='GeM', p=3, q=dict(a=1)))])
def test_a_value_is_what_was_typed(typed, meant):
    found = read_value(typed)
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize('value', ['a', 'a, b', "it's", ' padded ', '007', 'tab\there', 3, -0.5,
                                   None, True, ['x', 'y, z'], (1, 'a'), {'k': ['v', {'w': '1,2'}]}])
def test_what_python_writes_comes_back(value):
    assert read_value(repr(value)) == value


@pytest.mark.parametrize('typed, says', [
    ('[a, b', 'without the ]'), ("'a", "without the '"), ('{a}', 'no entry of a dict'),
    ('dict(1)', 'no entry of a dict')])
def test_what_does_not_close_is_refused(typed, says):
    with pytest.raises(ValueError, match=says):
        read_value(typed)


def test_options_are_collected(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--set', nargs='+', action=ReadOptions)
    given = parser.parse_args(['--set', 'a=1', 'b=x=y', '--set', 'a=two words']).set
    assert given == dict(a='two words', b='x=y')
    with pytest.raises(SystemExit):
        parser.parse_args(['--set', 'lonely'])
    assert "takes KEY=VALUE, got 'lonely'" in capsys.readouterr().err


def test_merging():
    config = dict(head=dict(type='A', size=1), neck=None, width=128, steps=[3, 6],
                  pair=(dict(x=1), 2))
    merge_options(config, {'head': dict(size=2), 'neck.type': 'GeM', 'width': dict(out=3),
                           'steps.1': 9, 'pair.0.x': 5})
    assert config == dict(head=dict(type='A', size=2), neck=dict(type='GeM'), width=dict(out=3),
                          steps=[3, 9], pair=[dict(x=5), 2])
    merge_options(config, {'head': dict(type='B')})  # another type: nothing of the old one stays
    assert config['head'] == dict(type='B')
    merge_options(config, {'head': dict(_delete_=True, x=1)})
    assert config['head'] == dict(x=1)
    for key, says in (('steps.7', 'no place in a list of 2'), ('pair.1.x', 'pair.1 is 2, and')):
        with pytest.raises(ValueError, match=says):
            merge_options(config, {key: 1})
