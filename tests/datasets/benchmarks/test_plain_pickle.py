"""Plain data comes through as it was; everything else is refused, and nothing of it ran."""
import collections
import copyreg
import decimal
import io
import os
import pickle
import struct
import sys

import numpy as np
import pytest

from retrieval.datasets.benchmarks import plain_pickle as module
from retrieval.datasets.benchmarks.plain_pickle import NotPlainError, load_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN = {
    'words': ['a', 'é\n', '', 'x' * 300], 'numbers': [0, -3, 255, 70000, 2**31, -2**70, 1.5, 1e300],
    'constants': (None, True, False), 'bytes': (b'', b'\xff\x00', b'y' * 300),
    'nested': {'a': [()]}, 'sets': [{1, 'a'}, frozenset([2]), set()],
    3: 'integer key', 1.5: 'float key', None: 'no key',
    'one': (1,), 'two': (1, 2), 'three': (1, 2, 3), 'four': (1, 2, 3, 4)}
ARRAYS = [
    np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.).reshape(2, 3)),
    np.arange(3, dtype='>i4'), np.empty((0, 4), np.uint8), np.array([True, False]),
    np.array(2.5, dtype=np.float16), np.array([1 + 2j])]


@pytest.fixture
def load(tmp_path):
    def load(data, **arguments):
        (tmp_path / 'x.pkl').write_bytes(data)
        return load_plain_pickle(tmp_path / 'x.pkl', **arguments)
    return load


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_plain_data(load, protocol):
    assert load(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_arrays_and_scalars(load, protocol):
    shared = np.arange(5)
    found = load(pickle.dumps([*ARRAYS, np.int64(7), np.float32(1.5), np.bool_(True), shared,
                               {'again': shared}], protocol))
    for got, want in zip(found, ARRAYS, strict=False):
        assert isinstance(got, np.ndarray) and got.dtype == want.dtype.newbyteorder('=')
        np.testing.assert_array_equal(got, want)
    assert found[len(ARRAYS):-2] == [7, 1.5, True]
    assert type(found[len(ARRAYS)]) is int
    np.testing.assert_array_equal(found[-1]['again'], shared)
    found[0][0] = 9  # arrays are their own


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_both_numpys(load, core):
    for protocol in (2, 5):
        data = pickle.dumps(np.arange(3), protocol)
        for old in (b'numpy._core.', b'numpy.core.'):
            data = _renamed(data, old, f'numpy.{core}.'.encode(), protocol)
        assert load(data).tolist() == [0, 1, 2]


def _renamed(data, old, new, protocol):
    """Another module name, whose length stands before it in the later protocols."""
    name = next((tail for tail in (b'multiarray', b'numeric') if old + tail in data), b'')
    if not name or old == new:
        return data
    if protocol == 2:
        return data.replace(old + name, new + name)
    lengths = [bytes([len(part + name)]) for part in (old, new)]
    body = data.replace(lengths[0] + old + name, lengths[1] + new + name)
    at = body.index(b'\x95')  # the frame
    return body[:at + 1] + struct.pack('<Q', len(body) - at - 9) + body[at + 9:]


def test_text_of_python_2(load):
    assert load(b'\x80\x02}q\x00U\x03abcq\x01K\x07s.') == {'abc': 7}
    assert load(b"(lp0\nS'b'\np1\naI01\na.") == ['b', True]


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


class WithState:
    pass


def touch(path):
    open(path, 'w').close()


def nested(*calls):
    """A chain of calls, each the argument of the next."""
    value = calls[0]
    for function in calls[1:]:
        value = Reduced(function, value)
    return value


HOSTILE = {
    'os.system': lambda path: Reduced(os.system, f'touch {path}'),
    'eval': lambda path: Reduced(eval, f'open({path!r}, "w").close()'),
    'exec': lambda path: Reduced(exec, f'open({path!r}, "w").close()'),
    'open': lambda path: Reduced(open, path, 'w'),
    'our own function': lambda path: Reduced(touch, path),
    'getattr': lambda path: Reduced(getattr, 'text', 'upper'),
    'getattr of getattr': lambda path: Reduced(getattr, Reduced(getattr, touch, '__globals__'),
                                               'get'),
    'import': lambda path: Reduced(__import__, 'antigravity'),
    'numpy.load': lambda path: Reduced(np.load, path, None, True),
    'numpy.save': lambda path: Reduced(np.save, path, 1),
    'numpy.fromfile': lambda path: Reduced(np.fromfile, '/etc/hostname'),
    'numpy.frompyfunc': lambda path: Reduced(np.frompyfunc, os.system, 1, 1),
    'numpy.ndarray': lambda path: Reduced(np.ndarray, (2, 2)),
    'numpy.vectorize': lambda path: np.vectorize(os.system),
    'copyreg': lambda path: Reduced(copyreg.add_extension, 'os', 'system', 7),
    'map': lambda path: nested(Reduced(map, os.system, [f'touch {path}']), list),
    'partial': lambda path: Reduced(__import__('functools').partial, os.system, path),
    'pickle.loads': lambda path: Reduced(pickle.loads, b'.'),
    'codecs': lambda path: Reduced(__import__('_codecs').encode, 'touch', 'rot13'),
    'bytearray': lambda path: Reduced(bytearray, 1 << 40),
    'an object': lambda path: WithState(),
    'a class': lambda path: decimal.Decimal,
    'a number of another kind': lambda path: decimal.Decimal(1),
    'a function': lambda path: touch,
    'counter': lambda path: collections.Counter('ab'),
    'objects in an array': lambda path: np.array([Reduced(os.system, f'touch {path}')], object),
    'plain objects in an array': lambda path: np.array([{}, None], object),
    'text in an array': lambda path: np.array(['a', 'b']),
    'a record': lambda path: np.zeros(2, dtype=[('a', 'i4')]),
    'dates': lambda path: np.array(['2020-01-01'], 'datetime64[D]'),
    'long floats': lambda path: np.ones(2, np.longdouble),
    'a masked array': lambda path: np.ma.masked_array([1, 2], [0, 1]),
    'a dtype': lambda path: np.dtype('f8'),
    'system of posix': lambda path: Reduced(__import__('posix').system, f'touch {path}'),
    'Popen': lambda path: Reduced(__import__('subprocess').Popen, ['touch', path]),
    'compile': lambda path: Reduced(compile, '1', 'a', 'eval'),
    'globals': lambda path: Reduced(globals),
    'attrgetter': lambda path: Reduced(__import__('operator').attrgetter, 'system'),
    'methodcaller': lambda path: Reduced(__import__('operator').methodcaller, 'system', path),
    'attributes of attributes': lambda path: Reduced(
        getattr, Reduced(getattr, Reduced(getattr, (), '__class__'), '__base__'),
        '__subclasses__'),
    'numpy.memmap': lambda path: Reduced(np.memmap, path, 'u1', 'w+', 0, 8),
    'numpy.genfromtxt': lambda path: Reduced(np.genfromtxt, '/etc/hostname'),
    'a matrix': lambda path: np.matrix([1]),
    'bytes of a size': lambda path: Reduced(bytes, 1 << 40),
    'range': lambda path: Reduced(list, range(1 << 40)),
    'a frozenset as a key': lambda path: {frozenset([1]): 2},
    'a tuple as a key': lambda path: {(1, 2): 3},
    'a set of tuples': lambda path: {(1, 2)},
}


@pytest.mark.parametrize('protocol', [0, 2, 5])
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles(name, protocol, load, tmp_path):
    trace = tmp_path / 'ran'
    before = set(sys.modules)
    data = pickle.dumps({'imlist': [HOSTILE[name](str(trace))]}, protocol)
    with pytest.raises(NotPlainError, match='it holds'):
        load(data)
    assert not trace.exists() and set(sys.modules) == before


RAW = {
    'a dotted name': b'\x80\x04\x8c\x02os\x8c\x0bpath.exists\x93.',
    'an attribute of an allowed name': b'\x80\x04\x8c\x05numpy\x8c\x11dtype.__subclasses\x93.',
    'a name in an allowed module': b'\x80\x04\x8c\x05numpy\x8c\x04load\x93.',
    'a persistent id': b'\x80\x02U\x01aQ.',
    'a persistent id in text': b'Pabc\n.',
    'an instance of old': b"(S'touch x'\nios\nsystem\n.",
    'an object of old': b'(cos\nsystem\no.',
    'a class made anew': b'\x80\x02cnumpy\ndtype\nU\x02f8\x85\x81.',
    'a class made anew with names': b'\x80\x04cnumpy\ndtype\n)}\x92.',
    'a numbered class': b'\x80\x02\x82\x07.',
    'a large numbered class': b'\x80\x02\x84\x07\x00\x00\x00.',
    'a buffer beside the file': b'\x80\x05\x97.',
    'a state for a function': b'\x80\x02cnumpy\ndtype\n}U\x04makeK\x01sb.',
    'a state for a list': b'\x80\x02]}b.',
    'a state for an array that is made': (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.'),
    'a call of the array class': b'\x80\x02cnumpy\nndarray\nK\x02\x85R.',
    'a set of a string': b'\x80\x02c__builtin__\nset\nU\x02ab\x85R.',
    'an unfinished array': (b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'
                            b'K\x00\x85U\x01b\x87R.'),
    'a call of a string': b'\x80\x02U\x02os)R.',
    'a list that holds itself': b'\x80\x02]q\x00h\x00a.',
    'a list that holds itself often': b'\x80\x02]q\x00(' + b'h\x00' * 50 + b'e.',
    'a bomb of 2 ** 60 lists': b'\x80\x02]q\x00' + b''.join(
        b'](h' + bytes([n]) + b'h' + bytes([n]) + b'eq' + bytes([n + 1]) for n in range(60)) + b'.',
    'lists 200,000 deep': b'\x80\x02' + b']' * 200000 + b'a' * 199999 + b'.',
    'tuples 200,000 deep as a key': b'\x80\x02})' + b'\x85' * 200000 + b'Ns.',
    'a key that takes 2 ** 60 steps to hash': b'\x80\x02}K\x01\x85q\x00' + b''.join(
        b'h' + bytes([n]) + b'h' + bytes([n]) + b'\x86q' + bytes([n + 1])
        for n in range(60)) + b'Ns.',
    'such a member of a set': b'\x80\x04\x8f(K\x01\x85q\x00' + b''.join(
        b'h' + bytes([n]) + b'h' + bytes([n]) + b'\x86q' + bytes([n + 1])
        for n in range(60)) + b'\x90.',
    'such a member of a frozenset': b'\x80\x04(K\x01\x85q\x00' + b''.join(
        b'h' + bytes([n]) + b'h' + bytes([n]) + b'\x86q' + bytes([n + 1])
        for n in range(60)) + b'\x91.',
    'a long string a million times': b'\x80\x02](X\xa0\x86\x01\x00' + b'a' * 100000 + b'q\x00'
                                     + b'h\x00' * 10**6 + b'e.',
    'a twin of the top': b'\x80\x02K\x012.',
    'something taken off': b'\x80\x02K\x01K\x020.',
    'a name by way of text': b'\x80\x02cos.path\njoin\n.',
    'an empty state for an object': b'\x80\x02cnumpy\ndtype\nNb.',
    'a call of an array': (b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'
                           b'K\x00\x85U\x01b\x87R)R.'),
    'codecs of another name': b'\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.',
    'no function of ours': b'\x80\x02cnumpy\nndarray\n.',
    'protocol 200': b'\x80\xc8N.',
    'a huge frame': b'\x80\x04\x95' + struct.pack('<Q', 1 << 62) + b'N.',
    'a huge string': b'\x80\x04\x8d' + struct.pack('<Q', 1 << 50) + b'a.',
    'huge bytes': b'\x80\x04\x8e' + struct.pack('<Q', 1 << 50) + b'a.',
    'huge bytes that can change': b'\x80\x05\x96' + struct.pack('<Q', 1 << 50) + b'a.',
    'a huge integer': b'\x80\x02\x8b' + struct.pack('<i', 2**31 - 1) + b'a.',
    'an integer of many digits': b'L' + b'9' * 10**6 + b'L\n.',
    'a place that is not in the memo': b'\x80\x02h\x07.',
    'no end': b'\x80\x04N',
    'nothing': b'',
    'no pickle': b'<html>',
    'an empty stack': b'.',
    'items without a mark': b'\x80\x02]e.',
    'half an item': b'\x80\x02}(Nu.',
    'a name that is no text': b'\x80\x04NN\x93.',
    'a name of one part': b'cos\n.',
}


@pytest.mark.parametrize('name', RAW)
def test_crafted_pickles(name, load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotPlainError, match='it holds|no sound pickle'):
        load(RAW[name])
    assert os.listdir(tmp_path) == ['x.pkl']


def test_what_repeats_may_not_grow_without_bound(load):
    """2 ** 30 leaves, no deeper than is let through."""
    data = b'\x80\x02K\x01q\x00' + b''.join(
        b'](h' + bytes([n]) + b'h' + bytes([n]) + b'eq' + bytes([n + 1]) for n in range(30)) + b'.'
    with pytest.raises(NotPlainError, match='repeat others'):
        load(data, max_bytes=1 << 18)
    shared = ['a'] * 3
    assert load(pickle.dumps([shared] * 9)) == [shared] * 9


def test_a_far_place_of_the_memo_takes_no_memory(load):
    assert load(b'\x80\x02Nr\xff\xff\xff\xff.') is None


def array_pickle(shape, content, code=b'f8', fortran=b'\x89'):
    """A pickle of protocol 2 as numpy writes it, with any shape and bytes."""
    edges = b''.join(b'\x8a\x08' + struct.pack('<q', edge) for edge in shape)
    return (b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R('
            b'K\x01(' + edges + b'tcnumpy\ndtype\nU' + bytes([len(code)]) + code
            + b'K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb' + fortran
            + b'U' + bytes([len(content)]) + content + b'tb.')


def test_crafted_arrays(load):
    good = load(array_pickle((2,), struct.pack('<2d', 1, 2)))
    assert good.tolist() == [1, 2]
    for shape, content in (((2**40,), b''), ((2**32, 2**32), b''), ((-1,), b'12345678'),
                           ((1,), b'1234'), ((2**62, 0), b'')):
        found = None
        try:
            found = load(array_pickle(shape, content))
        except NotPlainError:
            continue
        assert found.size == 0, shape
    for code in (b'O8', b'V8', b'S8', b'i4,i4', b'object', b'f16', b'>O8', b''):
        with pytest.raises(NotPlainError, match='no numbers'):
            load(array_pickle((1,), b'12345678', code))


def test_a_record_behind_a_dtype_of_numbers(load):
    """The state of a dtype may name fields, whatever its code says."""
    names = b'U\x01a\x85'  # ('a',)
    for parts in (b'NN' + names, b'N' + names + b'N', names + b'NN'):
        data = array_pickle((1,), b'12345678').replace(b'U\x01<NNN', b'U\x01<' + parts)
        with pytest.raises(NotPlainError, match='structured dtype'):
            load(data)
    with pytest.raises(NotPlainError, match='structured dtype|no sound pickle'):
        load(array_pickle((1,), b'12345678').replace(b'U\x01<NNN', b'K\x01NNN'))


def test_too_large_a_file_is_not_read(load, monkeypatch):
    monkeypatch.setattr(module, 'read_regular', lambda path: pytest.fail('it was read'))
    with pytest.raises(NotPlainError, match='it has 5,000 bytes, where 4,000 are expected'):
        load(b'x' * 5000, max_bytes=4000)


def test_every_name_stands_for_a_function_of_the_module():
    """Not for one of NumPy or Python, which trusts its arguments."""
    assert {function.__module__ for function in module._NAMES.values()} == {module.__name__}


def test_no_instruction_is_left_in_that_makes_an_object():
    """The instructions of Python's reader are Python's, replaced here, or refused."""
    makers = ('INST', 'OBJ', 'NEWOBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4', 'PERSID', 'BINPERSID',
              'NEXT_BUFFER', 'READONLY_BUFFER', 'POP', 'DUP', 'POP_MARK')
    reader = module._PlainUnpickler
    for name in makers:
        assert reader.dispatch[getattr(pickle, name)[0]] is reader.refuse
    assert set(reader.dispatch) == set(pickle._Unpickler.dispatch)


def test_a_name_is_not_changed_by_a_pickle(load):
    """A state is for arrays and dtypes; one for a function would stay on in the process."""
    before = {key: vars(function).copy() for key, function in module._NAMES.items()}
    for state in (b'}U\x0c__defaults__K\x01s', b'N}U\x0c__defaults__K\x01s\x86',
                  b'N}U\x0c__setstate__K\x01s\x86'):
        for name in (b'numpy\ndtype', b'_codecs\nencode', b'numpy.core.multiarray\nscalar'):
            with pytest.raises(NotPlainError, match='with a state'):
                load(b'\x80\x02c' + name + b'\n' + state + b'b.')
    assert {key: vars(function) for key, function in module._NAMES.items()} == before


def test_damage_of_every_kind_has_one_error(load):
    """Bytes changed, taken out and put in: what is left is plain data or refused."""
    rng = np.random.default_rng(0)
    value = {'imlist': ['a'], 'gnd': [{'bbx': [1., 2, 3, 4], 'easy': np.arange(3), 's': {1}}]}
    refused = 0
    for protocol in PROTOCOLS:
        whole = pickle.dumps(value, protocol)
        for _ in range(50):
            at, kind = rng.integers(len(whole)), rng.integers(3)
            new = b'' if kind == 0 else bytes([rng.integers(256)])
            data = whole[:at] + new + whole[at + (kind < 2):]
            try:
                load(data)
            except NotPlainError:
                refused += 1
    assert refused > 200


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_plain_pickle(tmp_path / 'absent.pkl')


def test_the_hostile_pickles_do_run_elsewhere(tmp_path):
    """What is refused above is a real attack: Python's own reader runs it."""
    trace = tmp_path / 'ran'
    data = pickle.dumps(HOSTILE['os.system'](str(trace)))
    pickle.Unpickler(io.BytesIO(data)).load()
    assert trace.exists()
