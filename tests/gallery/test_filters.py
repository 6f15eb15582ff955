import operator
import random

import numpy as np
import pytest

from retrieval.gallery import Gallery
from retrieval.gallery.filters import parse_filter, whole_bound

ROWS = 60
SIGNS = {'=': operator.eq, '!=': operator.ne, '<': operator.lt, '<=': operator.le,
         '>': operator.gt, '>=': operator.ge}


def example(seed=0):
    """Columns of each kind, as plain Python values: whole numbers, fractions, text, dates."""
    draw = random.Random(seed)
    return dict(
        stock=[draw.randrange(-3, 9) for _ in range(ROWS)],
        price=[draw.choice([0.5, 1.25, 9.99, 20.0, 31.5]) for _ in range(ROWS)],
        new=[draw.random() < 0.5 for _ in range(ROWS)],
        brand=[draw.choice(['Fiat', 'Alfa Romeo', 'Šeat', 'a"b', '0012']) for _ in range(ROWS)],
        date=[draw.choice(['2025-12-31', '2026-01-05', '2026-01-31', '2026-02-01T10:00', ''])
              for _ in range(ROWS)])


def as_gallery(columns):
    vectors = np.random.default_rng(1).normal(size=(ROWS, 8)).astype(np.float32)
    return Gallery(vectors, [f'p{row}' for row in range(ROWS)], metadata={
        name: np.array(values) if isinstance(values[0], (int, float, bool)) else values
        for name, values in columns.items()})


def quoted(text):
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'


def dated(sign):
    """A date as it is ordered: at the value's precision, and missing is in no order."""
    return lambda value, edge: bool(value) and SIGNS[sign](value[:len(edge)], edge)


def condition(draw):
    """A condition as text, and what it says of a row in plain Python."""
    name = draw.choice(['stock', 'price', 'new', 'brand', 'date'])
    if name in ('stock', 'price'):
        sign = draw.choice(list(SIGNS))
        value = draw.choice(['-1', '0', '4', '20', '1.25', '9.99', '2.5'])
        if name == 'stock' and '.' in value and sign in ('=', '!='):
            value = '4'
        return f'{name}{sign}{value}', lambda row: SIGNS[sign](row[name], float(value))
    if name == 'new':
        wanted = draw.random() < 0.5
        return f'new = {wanted}', lambda row: row['new'] == wanted
    if name == 'brand':
        some = draw.sample(['Fiat', 'Alfa Romeo', 'Šeat', 'a"b', '0012', '12'], 2)
        turned = draw.random() < 0.3
        return (f'brand {"not " * turned}in ({", ".join(map(quoted, some))})',
                lambda row: (row['brand'] in some) != turned)
    sign = draw.choice(['<', '<=', '>', '>='])
    edge = draw.choice(['2026-01', '2026-01-31', '2025-12'])
    return f'date {sign} {edge}', lambda row: dated(sign)(row['date'], edge)


def expression(draw, depth):
    kind = draw.choice(['and', 'or', 'not', 'one']) if depth else 'one'
    if kind == 'one':
        return condition(draw)
    first, holds = expression(draw, depth - 1)
    if kind == 'not':
        return f'not ({first})', lambda row: not holds(row)
    second, also = expression(draw, depth - 1)
    if kind == 'and':
        return f'({first}) AND ({second})', lambda row: holds(row) and also(row)
    return f'({first}) or {second}', lambda row: holds(row) or also(row)


def cases(count, depth=3):
    draw = random.Random(7)
    made = [expression(draw, depth) for _ in range(count)]
    return [(text, holds) for text, holds in made]


def test_it_is_what_python_says():
    columns = example()
    gallery = as_gallery(columns)
    rows = [{name: values[row] for name, values in columns.items()} for row in range(ROWS)]
    for text, holds in cases(300):
        assert gallery.where(text).tolist() == [bool(holds(row)) for row in rows], text


def test_and_binds_closer_than_or():
    columns = dict(a=np.array([0, 0, 1, 1]), b=np.array([0, 1, 0, 1]))
    say = lambda text: parse_filter(text).mask(columns.__getitem__).tolist()  # noqa: E731
    assert say('a=1 or a=0 and b=0') == [True, False, True, True]
    assert say('not a=1 and b=1') == [False, True, False, False]
    assert say('(a=1 or a=0) and b=0') == [True, False, True, False]


def test_labels_by_name_ids_and_columns_in_quotes():
    gallery = Gallery(np.eye(3), 'xyz', ['cat', 'dog', 'cat'], metadata={'no. of legs': [4, 3, 4]})
    assert gallery.where('label=cat and "no. of legs" >= 4').tolist() == [True, False, True]
    assert list(gallery.filter('id in [x, y] and label != dog').ids) == ['x']


def test_fractions_count_as_the_column_holds_them():
    gallery = Gallery(np.eye(2), metadata=dict(p=np.array([0.1, np.nan], np.float32)))
    assert gallery.where('p<=0.1').tolist() == gallery.where('p=0.1').tolist() == [True, False]
    assert gallery.where('not p<=0.1').tolist() == [False, True]


def test_text_of_numbers_is_ordered_as_numbers():
    gallery = Gallery(np.eye(3), metadata=dict(price=['9.50', '100', '']))
    assert gallery.where('price<20').tolist() == [True, False, False]
    assert gallery.where('price=9.5').tolist() == [False, False, False]  # it is written 9.50


@pytest.mark.parametrize('sign, text, found', [
    ('<', '3.0', ('<', 3)), ('<=', '-2.5', ('<=', -3)), ('>', '1e2', ('>', 100)),
    ('>=', '9007199254740993', ('>=', 9007199254740993))])
def test_whole_numbers_stay_exact(sign, text, found):
    assert whole_bound(sign, text) == found


def test_numbers_beyond_all_rows():
    gallery = Gallery(np.eye(2), metadata=dict(n=[1, 2]))
    assert gallery.where('n<inf').all() and not gallery.where('n>=inf').any()
    assert not gallery.where('n<-inf').any() and gallery.where('n>-inf').all()


@pytest.mark.parametrize('text, message', [
    ('price<', 'a value was expected, at its end'), ('price', 'was expected behind'),
    ('price<20 brand=a', 'nothing more'), ('(price<20', r"'\)' was expected"),
    ('brand in Fiat', 'a list were expected'), ('brand="Fiat', 'not closed'), ('', 'a column'),
    ('prise<20', "Did you mean 'price'"), ('brand<20', "holds text such as 'Alfa Romeo'|'Fiat'"),
    ('price<cheap', 'holds numbers'), ('new<3', 'no order'), ('stock=4.5', 'holds whole numbers'),
    ('date>2026', 'written 2026-01')])
def test_a_message_for_each_mistake(text, message):
    columns = example()
    columns['brand'] = ['Fiat' for _ in columns['brand']]
    columns['date'] = ['2026-01-05' for _ in columns['date']]
    with pytest.raises(ValueError, match=message):
        as_gallery(columns).where(text)


FIELDS = dict(stock=('m_stock', 'int'), price=('m_price', 'float'), new=('m_new', 'bool'),
              brand=('m_brand', 'str'), date=('m_date', 'str'))


@pytest.mark.parametrize('text, milvus', [
    ('stock = 3', '(m_stock == 3)'), ('stock in (1, 2)', '(m_stock == 1 or m_stock == 2)'),
    ('stock in (1, 2, 3)', 'm_stock in [1, 2, 3]'), ('price in (1, 2.5)',
                                                     '(m_price == 1.0 or m_price == 2.5)'),
    ('new = TRUE', '(m_new == true)'), ('new in (0)', '(m_new == false)'),
    ('brand in (Šeat, "b\\"c")', 'm_brand in ["Šeat", "b\\"c"]'), ('stock < 2.5', 'm_stock <= 2'),
    ('stock >= 1e3', 'm_stock >= 1000'), ('price <= 2', 'm_price <= 2.0'), ('price < inf', None),
    ('stock < 9223372036854775808', None), ('brand < 7', None),
    ('brand < x', '(m_brand != "" and m_brand < "x")'),
    ('date <= 2026-01-31', '(m_date != "" and m_date < "2026-01-31~")'),
    ('date > 2026-01-31', '(m_date != "" and m_date >= "2026-01-31~")'),
    ('date < 2026-01', '(m_date != "" and m_date < "2026-01")'),
    ('not stock = 3', '(not ((m_stock == 3)))'), ('stock = 3 or not brand < 7', None),
    ('stock = 3 and (price < 2 or new = 1)',
     '((m_stock == 3) and (m_price < 2.0 or (m_new == true)))')])
def test_the_expression_of_milvus(text, milvus):
    assert parse_filter(text).to_milvus(FIELDS) == milvus


@pytest.mark.parametrize('text, message', [
    ('stok = 1', "Did you mean 'stock'"), ('new < 1', 'no order'), ('stock < x', 'holds numbers'),
    ('stock = x', 'holds whole numbers'), ('price < x', 'holds numbers')])
def test_what_milvus_would_not_be_asked(text, message):
    with pytest.raises(ValueError, match=message):
        parse_filter(text).to_milvus(FIELDS)


def test_the_columns_that_a_message_names():
    with pytest.raises(ValueError, match=r'names: id\.'):
        Gallery(np.eye(2)).where('x = 1')
    with pytest.raises(ValueError, match=r'names: id, label\.'):
        Gallery(np.eye(2), labels=[0, 1]).where('x = 1')
