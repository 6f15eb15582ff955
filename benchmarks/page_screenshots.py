"""The pictures of docs/serving.md: the page over real photographs, in headless Chromium.

    pip install scikit-image playwright && apt-get install chromium
    python benchmarks/page_screenshots.py                    writes docs/images/page_*.jpg

The photographs are those that scikit-image and scikit-learn bring along, each as it is and as five
variants; the model is the default encoder, the calibration that of `retrieval calibrate`.
"""
from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance

LEFT_OUT = ('logo', 'phantom', 'chessboard', 'multipage', 'text', 'color', 'motorcycle_disp')


def photographs() -> list[Path]:
    """The photographs that installed packages bring along."""
    import skimage
    import sklearn

    folders = [Path(skimage.__file__).parent / 'data',
               Path(sklearn.__file__).parent / 'datasets' / 'images']
    return [path for folder in folders for path in sorted(folder.iterdir())
            if path.suffix in ('.png', '.jpg') and not path.stem.startswith(LEFT_OUT)]


def write_variants(folder: Path) -> None:
    """Each photograph in a folder of its own: whole, small, bright, two parts, and turned."""
    chance = random.Random(1)
    for path in photographs():
        image = Image.open(path).convert('RGB')
        image.thumbnail((1200, 1200))
        width, height = image.size
        variants = {'': image, '-small': image.resize((width // 2, height // 2)),
                    '-bright': ImageEnhance.Brightness(image).enhance(1.3)}
        for number in (1, 2, 3):
            share = chance.uniform(0.5, 0.8)
            left, top = (int(chance.uniform(0, 1 - share) * side) for side in (width, height))
            part = image.crop((left, top, left + int(share * width), top + int(share * height)))
            variants[f'-part{number}'] = part.rotate(90, expand=True) if number == 3 else part
        inside = folder / path.stem
        inside.mkdir(parents=True)
        for name, variant in variants.items():
            exif = Image.Exif()
            exif[0x0110] = chance.choice(['X100V', 'EOS 80D', 'Pixel 8'])
            exif[0x0132] = f'20{chance.randint(18, 25)}:{chance.randint(1, 12):02d}:12 12:00:00'
            variant.save(inside / f'{path.stem}{name}.jpg', quality=90, exif=exif)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which the command serves a folder, with a calibration on its sub-folders."""
    calibration = folder.with_suffix('.json')
    command = [sys.executable, '-m', 'retrieval']
    subprocess.run([*command, 'calibrate', folder, calibration], check=True)
    with subprocess.Popen([*command, 'serve', folder, '--no-browser', '--port', '0',
                           '--calibration', calibration], stdout=subprocess.PIPE,
                          text=True) as server:
        assert server.stdout is not None
        line = next(line for line in server.stdout if line.startswith('Serving '))
        try:
            yield line.split(' at ')[1].split()[0]
        finally:
            server.terminate()


def take(page: Any, address: str, folder: Path, out: Path) -> None:
    """One picture after another."""
    def keep(name: str) -> None:
        page.wait_for_load_state('networkidle')
        page.wait_for_timeout(1500)
        page.screenshot(path=out / f'page_{name}.jpg', type='jpeg', quality=82)

    page.goto(address)
    page.wait_for_selector('.card')
    page.wait_for_selector('.progress', state='detached', timeout=300_000)
    page.set_input_files('input.file >> nth=0', folder / 'chelsea' / 'chelsea-part1.jpg')
    page.wait_for_selector('.score')
    keep('search')
    page.goto(f'{address}#view=duplicates')
    page.wait_for_selector('.group')
    keep('duplicates')
    for name in ('brick', 'camera', 'cell', 'coins', 'grass', 'gravel', 'moon', 'retina'):
        page.goto('about:blank')
        page.goto(f'{address}#q=i:{name}/{name}-part3.jpg&stack=0')
        page.wait_for_selector('.score')
        for at in range(9):
            card = page.locator('.card').nth(at)
            right = card.locator('.label').inner_text() == name
            card.locator('.picture').focus()
            page.keyboard.press('y' if right else 'n')
            card.locator('.mark').wait_for()
    page.get_by_role('link', name='Marks').click()
    page.get_by_role('button', name='Train on the marks').click()
    page.wait_for_selector('table')
    keep('marks')
    page.goto(f'{address}#view=map')
    page.wait_for_selector('.legend', timeout=120_000)
    page.get_by_role('button', name='Lasso').click()
    frame = page.locator('canvas').bounding_box()
    corners = [(0.3, 0.2), (0.55, 0.15), (0.62, 0.5), (0.45, 0.7), (0.3, 0.5)]
    places = [(frame['x'] + x * frame['width'], frame['y'] + y * frame['height'])
              for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    keep('map')


def main() -> None:
    """Make the folder, serve it, and take the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path,
                        default=Path(__file__).resolve().parents[1] / 'docs' / 'images')
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary) / 'photographs'
        write_variants(folder)
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'),
                                             args=['--no-sandbox'])
        with serving(folder) as address:
            page = browser.new_page(viewport=dict(width=1120, height=760))
            take(page, address, folder, out)
        browser.close()


if __name__ == '__main__':
    main()
