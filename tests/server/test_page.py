"""The page in headless Chromium, over the real service; skipped where there is no Chromium.

Asking is tested in the default run, what is looked at less often with the slow tests.
"""
import csv
import json
import os
import shutil
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.evaluation import MatchCalibration
from retrieval.retrievers import ImageToImageRetriever

uvicorn = pytest.importorskip('uvicorn', reason="the page wants: pip install 'retrieval[web]'")
sync_playwright = pytest.importorskip(
    'playwright.sync_api', reason='the page is tested with Playwright: pip install playwright'
).sync_playwright
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
                None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='the page is tested in Chromium: apt-get install chromium')

ROOT = Path(__file__).parents[2]
PIPELINE = [dict(type='retrieval.LoadImage'),
            dict(type='Resize', scale=(24, 24), keep_ratio=False),
            dict(type='retrieval.PackInputs')]
COLOURS = [(200, 40, 40), (40, 180, 60), (50, 70, 210), (220, 190, 40), (150, 60, 180),
           (40, 190, 190)]
EACH = 5


class Colours(torch.nn.Module):
    """Pictures ``(B, 3, H, W)`` as what they have above or below grey in four by four places, and
    words as the colour of the kind that they name.
    """

    has_words = True

    def embed_words(self, texts):
        colours = torch.tensor([COLOURS[int(text[-1])] for text in texts]) / 255 - 0.5
        return colours[:, :, None].expand(-1, 3, 16).flatten(1)

    def word_state(self):
        return []

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images / 255 - 0.5, 4).flatten(1)


def make_pictures(folder):
    """Six colours, five pictures each: two of them near-identical, one with another half."""
    generator = np.random.default_rng(0)
    for kind, colour in enumerate(COLOURS):
        inside = folder / f'kind{kind}'
        inside.mkdir(parents=True)
        for number in range(EACH):
            pixels = np.full((90, 120 if number % 2 else 160, 3), colour, dtype=np.int64)
            pixels[:, : 12 * number] = COLOURS[(kind + 1) % len(COLOURS)] if number > 1 else colour
            pixels += generator.integers(-6, 7, pixels.shape)
            exif = Image.Exif()
            exif[0x0110] = 'Camera A' if number % 2 else 'Camera B'
            exif[0x0132] = f'20{10 + number}:05:17 12:00:00'
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                inside / f'picture{number}.jpg', exif=exif)


@contextmanager
def serving(folder, calibration=None, load=None):
    """The address at which a folder is served, as the command does it.

    ``load`` makes another model.
    """
    from retrieval.commands.serve import listen
    from retrieval.server.app import create_app
    from retrieval.server.follow import follow_folder
    from retrieval.server.reload import Reload
    from retrieval.server.served import Served
    from retrieval.server.service import Service, Source

    model = ImageToImageRetriever(Colours())
    service = Service(Served(model, PIPELINE, calibration),
                      Source('pictures', folder / '.serve', folder=str(folder)))
    follower = follow_folder(service)
    with listen('127.0.0.1', 0, 0) as listening:
        app = create_app(service, '127.0.0.1', None, None, follower.start,
                         Reload(service, load))
        server = uvicorn.Server(uvicorn.Config(app, log_level='warning'))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f'http://127.0.0.1:{listening.getsockname()[1]}/'
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp('served')
    make_pictures(folder)
    with serving(folder, MatchCalibration(0.8, method='platt', slope=30., offset=-24.)) as url:
        yield url


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            '--no-sandbox', '--use-fake-device-for-media-stream',
            '--use-fake-ui-for-media-stream'])
        yield started
        started.close()


def wait_until(page, holds, timeout=15):
    """Wait for what Python sees; scripts that are text are refused by the page's policy."""
    end = time.monotonic() + timeout
    while not holds() and time.monotonic() < end:
        page.wait_for_timeout(50)
    assert holds()


def expect(locator, count, timeout=15):
    """Wait until so many elements are there."""
    wait_until(locator.page, lambda: locator.count() == count, timeout)


@contextmanager
def opened(browser, address, **options):
    """A page that must not write errors to the console, nor ask another host."""
    context = browser.new_context(**{'viewport': dict(width=1200, height=800), **options})
    context.set_default_timeout(15000)
    page, wrong = context.new_page(), []
    page.on('console', lambda line: line.type in ('error', 'warning') and wrong.append(line.text))
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('request', lambda request: request.url.startswith((address, 'blob:'))
            or wrong.append(request.url))
    page.goto(address)
    page.wait_for_selector('.card')
    expect(page.locator('.progress'), 0, 30)
    yield page
    assert wrong == []
    context.close()


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as shown:
        yield shown


def go(page, address, fragment):
    """Open the page anew with a state in its address."""
    page.goto('about:blank')
    page.goto(address + fragment)
    page.wait_for_selector('main')


def names(page):
    return page.locator('.grid .caption .name').evaluate_all('all => all.map(one => one.title)')


def picture_file(tmp_path, colour):
    path = tmp_path / 'asked.png'
    Image.new('RGB', (80, 60), colour).save(path)
    return path


PASTE = '''async (bytes) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "shot.png", {type: "image/png"}));
  dispatchEvent(new %s);
}'''


class TestQuery:
    def test_chosen_picture_stands_in_the_address(self, page, address, tmp_path):
        page.set_input_files('input.file >> nth=0', picture_file(tmp_path, COLOURS[2]))
        expect(page.locator('.chip'), 1)
        page.wait_for_selector('.score')
        found = names(page)
        assert found[0].startswith('kind2/')
        again = page.url
        page.go_back()
        expect(page.locator('.chip'), 0)
        page.goto('about:blank')
        page.goto(again)
        page.wait_for_selector('.score')
        assert names(page) == found

    def test_words_are_chips_with_a_sign(self, page):
        line = page.get_by_role('searchbox', name='Words to search for')
        line.fill('kind 2')
        line.press('Enter')
        expect(page.locator('.chip .written'), 1)
        page.wait_for_selector('.score')
        assert names(page)[0].startswith('kind2/') and line.input_value() == ''
        assert page.locator('.line').count() == 0, 'the threshold is of pictures'
        line.fill('-kind 3')
        page.get_by_role('button', name='Add', exact=True).click()
        expect(page.locator('.chip.minus'), 1)
        assert 't:kind' in page.url and '-1t:kind' in page.url
        again = page.url
        page.goto('about:blank')
        page.goto(again)
        expect(page.locator('.chip .written'), 2)

    @pytest.mark.slow
    @pytest.mark.parametrize('event', ['ClipboardEvent("paste", {clipboardData: data})',
                                       'DragEvent("drop", {dataTransfer: data})'])
    def test_pasted_and_dropped_picture(self, page, tmp_path, event):
        data = picture_file(tmp_path, COLOURS[3]).read_bytes()
        page.evaluate(PASTE % event, list(data))
        page.wait_for_selector('.score')
        assert names(page)[0].startswith('kind3/')

    @pytest.mark.slow
    def test_more_like_this_plus_and_minus(self, page):
        card = page.locator('.card').filter(has=page.get_by_title('kind0/picture4.jpg'))
        card.hover()
        card.locator('.tool.more').click()
        page.wait_for_selector('.score')
        assert page.url.endswith('#q=i:kind0/picture4.jpg')
        assert names(page)[0].startswith('kind0/')
        card = page.locator('.card').filter(has_text='kind1').first
        card.hover()
        card.locator('.tool.minus').click()
        expect(page.locator('.chip.minus'), 1)
        assert 'q=-1i:kind1/' in page.url
        page.locator('.chip.minus .sign').click()
        expect(page.locator('.chip.minus'), 0)
        page.locator('.chip .remove').last.click()
        expect(page.locator('.chip'), 1)

    @pytest.mark.slow
    def test_part_that_is_drawn_on_a_picture(self, page, address):
        go(page, address, '#open=kind0/picture4.jpg')
        page.wait_for_selector('.crop img')
        wait_until(page, lambda: page.locator('.crop img').evaluate('(image) => image.complete'))
        frame = page.locator('.crop').bounding_box()
        place = lambda x, y: (frame['x'] + x * frame['width'], frame['y'] + y * frame['height'])  # noqa: E731
        page.mouse.move(*place(0.02, 0.1))
        page.mouse.down()
        page.mouse.move(*place(0.26, 0.9), steps=3)
        page.mouse.up()
        page.get_by_role('button', name='Search with this part').click()
        page.wait_for_selector('.score')
        # the left of this picture has the colour of the next kind
        assert '@' in page.url and names(page)[0].startswith('kind1/')
        found = names(page)
        go(page, address, page.url.removeprefix(address))
        page.wait_for_selector('.score')
        assert names(page) == found and page.locator('.chip .box').count() == 1

    @pytest.mark.slow
    def test_picture_of_the_camera_is_added(self, page, address):
        go(page, address, '#q=i:kind0/picture4.jpg')
        page.get_by_role('button', name='Camera').click()
        video = page.locator('dialog video')
        wait_until(page, lambda: video.evaluate('(one) => one.videoWidth') > 0)
        page.get_by_role('button', name='Take it').click()
        expect(page.locator('.chip'), 2)
        page.wait_for_selector('.score')
        assert '&q=u:' in page.url and page.locator('dialog').count() == 0

    @pytest.mark.slow
    def test_pictures_that_are_added_and_their_weights(self, page, address, tmp_path):
        """Green and blue together are nearest to cyan, green without blue to green."""
        for event, colour in (('', 1), ('shiftKey: true', 2)):
            data = list(picture_file(tmp_path, COLOURS[colour]).read_bytes())
            page.evaluate(PASTE % f'DragEvent("drop", {{dataTransfer: data, {event}}})', data)
            expect(page.locator('.chip'), colour)
        wait_until(page, lambda: names(page)[0].startswith('kind5/'))
        page.locator('.chip .part').last.click()
        page.get_by_role('spinbutton', name='Weight').fill('-0.5')
        page.keyboard.press('Enter')
        page.get_by_role('button', name='Done').click()
        expect(page.locator('.chip.minus'), 1)
        assert page.locator('.chip .sign').last.inner_text() == '−0.5' and 'q=-0.5u:' in page.url
        wait_until(page, lambda: names(page)[0].startswith('kind1/'))

    def test_file_that_is_no_picture_is_refused_in_words(self, browser, address, tmp_path):
        path = tmp_path / 'broken.png'
        path.write_bytes(b'no picture')
        context = browser.new_context()
        shown = context.new_page()
        shown.goto(address)
        shown.wait_for_selector('.card')
        shown.set_input_files('input.file >> nth=0', path)
        assert 'image' in shown.wait_for_selector('[role=alert]').inner_text()
        context.close()


@pytest.mark.slow
class TestResults:
    def test_line_of_the_threshold_and_no_match(self, page, address, tmp_path):
        go(page, address, '#q=i:kind0/picture0.jpg')
        page.wait_for_selector('.line')
        expect(page.locator('.line'), 1)
        scores = page.locator('.grid .score').evaluate_all('all => all.map(one => one.title)')
        values = [float(text.split()[-1]) for text in scores]
        above = page.locator('.grid > ul').first.locator('.card').count()
        assert all(value >= 0.8 for value in values[:above])
        assert all(value < 0.8 for value in values[above:])
        noise = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = tmp_path / 'noise.png'
        Image.fromarray(noise).resize((96, 96), Image.Resampling.NEAREST).save(path)
        with page.expect_file_chooser() as chooser:
            page.get_by_role('button', name='Add a picture').click()
        chooser.value.set_files(path)
        expect(page.locator('.chip'), 2)
        page.locator('.chip .remove').first.click()
        page.wait_for_selector('.no-match')

    def test_filter_sort_and_stack(self, page):
        box = page.get_by_role('checkbox', name='kind4')
        box.check()
        expect(page.locator('.card'), EACH)
        assert all(name.startswith('kind4/') for name in names(page))
        assert 'f.label=kind4' in page.url
        page.get_by_role('combobox').select_option('date')
        latest_first = [f'kind4/picture{number}.jpg' for number in reversed(range(EACH))]
        wait_until(page, lambda: names(page) == latest_first)
        page.get_by_role('button', name='Clear the filter').click()
        expect(page.locator('.card'), EACH * len(COLOURS))

    def test_other_values_of_a_filter_stay_in_sight(self, page):
        page.get_by_role('checkbox', name='Camera A').check()
        expect(page.locator('.card'), 2 * len(COLOURS))
        page.get_by_role('checkbox', name='Camera B').check()
        expect(page.locator('.card'), EACH * len(COLOURS))
        assert 'f.camera=Camera+A&f.camera=Camera+B' in page.url
        page.get_by_label('to', exact=True).fill('2012-12-31')
        expect(page.locator('.card'), 3 * len(COLOURS))
        page.get_by_role('combobox').select_option('folder')
        wait_until(page, lambda: names(page)[:4] == [
            *(f'kind0/picture{number}.jpg' for number in range(3)), 'kind1/picture0.jpg'])

    def test_thumbnails_come_when_they_are_seen_and_once(self, browser, address):
        with opened(browser, address, viewport=dict(width=500, height=400)) as shown:
            images = shown.locator('.card img')
            assert set(images.evaluate_all('all => all.map(one => one.loading)')) == {'lazy'}
            again = shown.request.get(address + images.first.get_attribute('src'))
            tag = again.headers['etag']
            kept = shown.request.get(address + images.first.get_attribute('src'),
                                     headers={'if-none-match': tag})
            assert again.status == 200 and kept.status == 304 and kept.body() == b''

    def test_rows_are_justified(self, page):
        """All rows but the last are as wide as the grid, and a row is of one height."""
        boxes = page.locator('.card .picture').evaluate_all(
            'all => all.map(one => { const box = one.getBoundingClientRect(); '
            'return [box.left, box.right, box.top, box.height]; })')
        rows = {}
        for left, right, top, height in boxes:
            rows.setdefault(round(top), []).append((left, right, round(height)))
        grid = page.locator('.grid').bounding_box()
        for row in list(rows.values())[:-1]:
            assert len({height for *_, height in row}) == 1
            assert row[0][0] == pytest.approx(grid['x'], abs=1)
            assert row[-1][1] == pytest.approx(grid['x'] + grid['width'], abs=2)

    def test_near_identical_results_are_one(self, page, address):
        go(page, address, '#q=i:kind2/picture4.jpg')
        page.wait_for_selector('.stacked')
        stacked = page.locator('.card').count()
        page.get_by_role('checkbox', name='Stack').uncheck()
        expect(page.locator('.stacked'), 0)
        assert page.locator('.card').count() > stacked

    def test_selection_is_exported(self, page):
        page.locator('.card').nth(0).hover()
        page.locator('.card .pick').nth(0).click()
        page.locator('.card').nth(2).hover()
        page.locator('.card .pick').nth(2).click(modifiers=['Shift'])
        assert page.locator('.selection strong').inner_text() == '3 selected'
        with page.expect_download() as started:
            page.get_by_role('button', name='JSON').click()
        kept = json.loads(Path(started.value.path()).read_text())
        assert [item['id'] for item in kept] == names(page)[:3]
        with page.expect_download() as started:
            page.get_by_role('button', name='CSV').click()
        table = csv.DictReader(Path(started.value.path()).read_text().splitlines())
        assert [line['id'] for line in table] == names(page)[:3]
        with page.expect_download() as started:
            page.get_by_role('button', name='ZIP').click()
        with zipfile.ZipFile(started.value.path()) as archive:
            assert len(archive.namelist()) == 4 and 'export.csv' in archive.namelist()
        page.context.grant_permissions(['clipboard-read', 'clipboard-write'])
        page.get_by_role('button', name='Copy paths').click()
        page.wait_for_selector('text=Copied 3 paths')
        copied = page.evaluate('() => navigator.clipboard.readText()')
        assert copied.splitlines() == names(page)[:3]

    def test_large_view_goes_through_the_results(self, page):
        first, second = page.locator('.card .picture').nth(0), names(page)[1]
        first.click()
        page.wait_for_selector('dialog.large .neighbours img')
        page.keyboard.press('ArrowRight')
        page.wait_for_selector(f'dialog.large h2:has-text("{os.path.basename(second)}")')
        page.keyboard.press('Escape')
        expect(page.locator('dialog'), 0)
        assert 'open' not in page.url


@pytest.mark.slow
def test_all_by_keyboard(page):
    page.locator('.card .picture').first.focus()
    page.keyboard.press('ArrowRight')
    page.keyboard.press('x')
    assert page.locator('.selection strong').inner_text() == '1 selected'
    page.keyboard.press('Enter')
    page.wait_for_selector('dialog.large h2')
    page.keyboard.press('Escape')
    expect(page.locator('dialog'), 0)
    page.keyboard.press('m')
    expect(page.locator('.chip'), 1)
    page.keyboard.press('?')
    page.wait_for_selector('dialog:has-text("Keys")')
    page.keyboard.press('Escape')
    # what a mouse chooses, Tab reaches, in the order of the page
    page.evaluate('() => document.activeElement.blur()')
    reached = []
    for _ in range(30):
        page.keyboard.press('Tab')
        reached.append(page.evaluate(
            '() => document.activeElement.ariaLabel || document.activeElement.innerText'))
    for name in ('To the results', 'Search', 'Duplicates', 'Map', 'Marks', 'Add a picture'):
        assert name in reached, reached
    page.get_by_role('checkbox', name='kind2').focus()
    page.keyboard.press('Space')
    wait_until(page, lambda: 'f.label=kind2' in page.url)


@pytest.mark.slow
def test_map_by_keyboard(page, address):
    go(page, address, '#view=map')
    page.wait_for_selector('.legend', timeout=60000)
    page.locator('canvas').focus()
    for key in ('+', '+', '+', '+', 'ArrowRight', 'Enter'):
        page.keyboard.press(key)
    shown = int(page.get_by_role('button', name='Show ').inner_text().split()[1])
    assert 0 < shown < EACH * len(COLOURS)
    page.get_by_role('combobox').select_option('cluster')
    page.wait_for_selector('.legend >> text=cluster 1')
    assert 'colour=cluster' in page.url
    legend = page.locator('.legend button').first
    legend.focus()
    page.keyboard.press('Enter')
    assert legend.get_attribute('aria-pressed') == 'true'


@pytest.mark.slow
def test_map_is_saved_as_parquet(page, address):
    parquet = pytest.importorskip('pyarrow.parquet', reason='wants pyarrow')
    go(page, address, '#view=map')
    page.wait_for_selector('.legend', timeout=60000)
    with page.expect_download() as started:
        page.get_by_role('button', name='Parquet').click()
    table = parquet.read_table(started.value.path()).to_pydict()
    assert started.value.suggested_filename == 'map.parquet'
    assert set(table['label']) == {f'kind{kind}' for kind in range(len(COLOURS))}


@pytest.mark.slow
def test_duplicates_become_a_plan(page, address):
    go(page, address, '#view=duplicates&threshold=0.99')
    page.wait_for_selector('.group')
    groups = page.locator('.group').count()
    page.get_by_role('button', name='Compare ').first.click()
    slider = page.locator('dialog.compare input[type=range]')
    slider.fill('20')
    assert '20%' in page.locator('dialog.compare .over img').nth(1).get_attribute('style')
    page.get_by_role('button', name='Difference').click()
    assert page.locator('.over.difference').count() == 1
    page.keyboard.press('Escape')
    page.locator('.group legend input').first.uncheck()
    page.locator('.group').nth(1).get_by_role('radio').last.check()
    kept = page.locator('.group').nth(1).locator('.name').last.inner_text()
    with page.expect_download() as started:
        page.get_by_role('button', name='Save the plan').click()
    plan = Path(started.value.path()).read_text().splitlines()
    assert sum(',keep,' in line for line in plan) == groups - 1
    assert any(line.endswith(f'keep,{kept}') for line in plan)


@pytest.mark.slow
def test_map_filters_by_what_is_in_view_and_by_a_lasso(page, address):
    go(page, address, '#view=map')
    page.wait_for_selector('.legend', timeout=60000)
    page.get_by_role('button', name='Take what is in view').click()
    everything = EACH * len(COLOURS)
    page.wait_for_selector(f'text=Show {everything} pictures')
    page.get_by_role('button', name='Clear the lasso').click()
    page.get_by_role('button', name='Lasso').click()
    frame = page.locator('canvas').bounding_box()
    place = lambda x, y: (frame['x'] + x * frame['width'], frame['y'] + y * frame['height'])  # noqa: E731
    page.mouse.move(*place(0.01, 0.01))
    page.mouse.down()
    for x, y in ((0.5, 0.01), (0.5, 0.99), (0.01, 0.99)):
        page.mouse.move(*place(x, y), steps=4)
    page.mouse.up()
    shown = int(page.get_by_role('button', name='Show ').inner_text().split()[1])
    assert 0 < shown < everything
    expect(page.locator('.card'), shown)
    page.get_by_role('button', name='Show ').click()
    expect(page.locator('.results .card'), shown)


@pytest.mark.slow
def test_marks_training_switch_and_undo(page, address):
    go(page, address, '#q=i:kind5/picture0.jpg&stack=0')
    page.wait_for_selector('.score')
    wrong = 0
    for place in range(12):
        card = page.locator('.card').nth(place)
        card.locator('.picture').focus()
        right = 'kind5/' in card.locator('.name').get_attribute('title')
        wrong += not right
        page.keyboard.press('y' if right else 'n')
        card.locator('.mark.yes' if right else '.mark.no').wait_for()
    page.get_by_role('link', name='Marks').click()
    page.wait_for_selector(f'text={12 - wrong} right marks, {wrong} wrong marks')
    page.get_by_role('button', name='Train on the marks').click()
    page.wait_for_selector('table')
    page.get_by_role('button', name='Use the trained model').click()
    page.get_by_role('button', name='Back to the original model').click()
    page.get_by_role('button', name='Use the trained model').wait_for()
    assert 'original' in page.locator('.tally').inner_text()


class Halves(Colours):
    """Pictures by their left and right half alone."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images / 255 - 0.5, (1, 2)).flatten(1)


@pytest.mark.slow
def test_another_model_is_compared_switched_to_and_back(browser, tmp_path):
    from retrieval.server.served import Served
    make_pictures(tmp_path)
    with serving(tmp_path, load=lambda: Served(ImageToImageRetriever(Halves()), PIPELINE)) as url:
        page = browser.new_page()
        page.goto(f'{url}#view=model')
        page.get_by_role('button', name='Load the other model').click()
        switch = page.get_by_role('button', name='Switch to the new model')
        switch.wait_for(timeout=30000)
        section = page.get_by_label('Another model')
        assert 'of the first 10 results in common' in section.inner_text()
        assert 'MAP@R' in section.inner_text() and 'In use: the present model' in \
            section.inner_text()
        if os.environ.get('PAGE_PICTURES'):
            page.screenshot(path=f'{os.environ["PAGE_PICTURES"]}/model.png', full_page=True)
        page.get_by_role('button', name='Search with both').click()
        wait_until(page, lambda: 'In use: both models, Colours and Halves' in section.inner_text())
        switch.click()
        back = page.get_by_role('button', name='Back to the old model')
        back.wait_for()
        wait_until(page, lambda: 'In use: the new model, Halves' in section.inner_text())
        back.click()
        switch.wait_for()
        wait_until(page, lambda: 'In use: the present model, Colours' in section.inner_text())
        page.close()


@pytest.mark.slow
def test_what_cannot_be_read_and_what_fails_is_said(browser, tmp_path):
    make_pictures(tmp_path)
    (tmp_path / 'kind0' / 'broken.jpg').write_bytes(b'no picture')
    with serving(tmp_path) as url:
        with opened(browser, url) as shown:
            shown.get_by_text('1 picture cannot be read').click()
            assert 'kind0/broken.jpg' in shown.locator('.unreadable li').inner_text()
        context = browser.new_context()  # what fails stands in the console too
        shown = context.new_page()
        shown.goto(url + '#open=kind0/absent.jpg')
        assert "no id 'kind0/absent.jpg'" in shown.wait_for_selector('[role=alert]').inner_text()
        shown.wait_for_selector('.card')
        shown.get_by_role('button', name='Dismiss').click()
        shown.route('**/v1/duplicates*', lambda route: route.fulfill(
            status=500, content_type='application/problem+json',
            body=json.dumps(dict(title='Internal error', detail='The server failed.'))))
        shown.get_by_role('link', name='Duplicates').click()
        assert 'The server failed.' in shown.wait_for_selector('[role=alert]').inner_text()
        shown.route('**/v1/search*', lambda route: route.abort())
        shown.get_by_role('link', name='Search').click()
        shown.get_by_role('checkbox', name='kind2').check()
        assert 'does not answer' in shown.wait_for_selector('[role=alert]').inner_text()
        context.close()


@pytest.mark.slow
def test_what_lasts_says_how_far_it_is(page, address):
    """The page asks again until the answer is there, and shows what it is told meanwhile."""
    asked = []

    def answer(route):
        asked.append(route.request.url)
        if len(asked) > 3:
            route.fallback()
        else:
            route.fulfill(status=202, json=dict(
                running=True, step='comparing pictures', done=len(asked), total=4, seconds=3))
    page.route('**/v1/duplicates*', answer)
    go(page, address, '#view=duplicates&threshold=0.98')
    page.wait_for_selector('.working >> text=comparing pictures, 2 of 4, 3 s so far')
    bar = page.get_by_role('progressbar', name='Looking for duplicates')
    assert bar.get_attribute('max') == '4'
    page.wait_for_selector('.group')
    assert len(asked) >= 4 and page.locator('.working').count() == 0


@pytest.mark.slow
def test_folder_is_followed_and_a_link_outlasts_a_restart(browser, tmp_path):
    make_pictures(tmp_path)
    with serving(tmp_path) as url, opened(browser, url) as shown:
        go(shown, url, '#q=i:kind3/picture4.jpg')
        shown.wait_for_selector('.score')
        link, found = shown.url.removeprefix(url), names(shown)
        go(shown, url, '')
        expect(shown.locator('.card'), EACH * len(COLOURS))
        (tmp_path / 'another').mkdir()  # before all others, so that their rows move
        shutil.copy(tmp_path / 'kind5' / 'picture0.jpg', tmp_path / 'another' / 'added.jpg')
        expect(shown.locator('.card'), EACH * len(COLOURS) + 1, 30)
    with serving(tmp_path) as url, opened(browser, url) as shown:
        go(shown, url, link)
        shown.wait_for_selector('.score')
        assert names(shown)[:5] == found[:5]
        assert shown.locator('.chip .part').get_attribute('aria-label').endswith('picture4.jpg')


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_no_serious_finding_of_axe(browser, address, scheme):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright',
                              reason='checked with axe: pip install axe-playwright-python').Axe()
    with opened(browser, address, bypass_csp=True, color_scheme=scheme) as shown:
        for fragment in ('', '#q=i:kind0/picture0.jpg', '#open=kind0/picture0.jpg',
                         '#view=duplicates', '#view=map', '#view=marks'):
            go(shown, address, fragment)
            shown.wait_for_selector({'#view=duplicates': '.group', '#view=map': '.legend'}.get(
                fragment, 'main'), timeout=60000)
            shown.wait_for_timeout(700)
            found = axe.run(shown).response['violations']
            serious = [(one['id'], one['nodes'][0]['html']) for one in found
                       if one['impact'] in ('serious', 'critical')]
            assert not serious, (fragment, serious)


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_fits_a_narrow_screen(browser, address, scheme):
    with opened(browser, address, viewport=dict(width=360, height=640), color_scheme=scheme,
                has_touch=True) as shown:
        for fragment in ('', '#q=i:kind0/picture0.jpg', '#open=kind0/picture0.jpg',
                         '#view=duplicates', '#view=map', '#view=marks'):
            go(shown, address, fragment)
            shown.wait_for_timeout(300)
            wide = shown.evaluate('document.documentElement.scrollWidth')
            assert wide <= 360, (fragment, wide)


def test_page_is_small_and_has_no_inline_script():
    import retrieval

    folder = Path(retrieval.__file__).parent / 'server' / 'page'
    files = [path for path in folder.rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 150_000
    text = (folder / 'index.html').read_text()
    assert '<style' not in text and 'style=' not in text and 'http' not in text
    assert '<script type="module" src="app.js"></script>' in text
