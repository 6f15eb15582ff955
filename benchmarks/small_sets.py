"""Small sets of pictures, as folders of classes, to measure fine-tuning on.

    python benchmarks/small_sets.py data/small_sets                   all of them
    python benchmarks/small_sets.py data/small_sets glyphs emoji      two of them

``glyphs``: characters in five typefaces, drawn here. ``emoji``: what an emoji looks like by four
vendors, from the npm packages emoji-datasource-*. ``icons``: a name of the icon themes that Debian
packages, drawn by several of them. ``stamps``: the pictures of Debian's tuxpaint-stamps-default,
each turned, sized and lit at random on crops of its wallpapers. ``objects``: shapes of the package
pybullet from random directions, in random colours and light.

Packages are downloaded (400 MB) and unpacked, not installed; ``pybullet`` must be there for
``objects`` (``pip install pybullet``, or give another environment's ``--python-with-pybullet``).
"""
from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

EDGE = 128  # of the largest pictures that are written
#: Families of icon themes, so that a class has no two drawings of one hand: (package, folder).
THEMES = [
    ('oxygen-icon-theme', 'oxygen'), ('faenza-icon-theme', 'Faenza'), ('gnome-icon-theme', 'gnome'),
    ('elementary-xfce-icon-theme', 'elementary-xfce'), ('lxde-icon-theme', 'nuoveXT2'),
    ('moka-icon-theme', 'Moka'), ('mate-icon-theme', 'mate'), ('tango-icon-theme', 'Tango'),
    ('obsidian-icon-theme', 'Obsidian')]
STAMPS = 'tuxpaint-stamps-default'
WALLPAPERS = ['mate-backgrounds', 'gnome-backgrounds', 'lomiri-wallpapers-20.04']
VENDORS = ['apple', 'google', 'twitter', 'facebook']
EMOJI_VERSION = '15.1.2'


def main() -> None:
    """Make the sets that are asked for and not there yet."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('folder', type=Path, help='where the sets go, and the downloads beside')
    arguments.add_argument('sets', nargs='*', metavar='SET', help=f'of {", ".join(MAKERS)}; all')
    arguments.add_argument('--python-with-pybullet', default=sys.executable)
    given = arguments.parse_args()
    unknown = sorted(set(given.sets) - set(MAKERS))
    if unknown:
        arguments.error(f'unknown sets {", ".join(unknown)}; write some of {", ".join(MAKERS)}')
    for name in given.sets or MAKERS:
        out = given.folder / name
        if not out.exists():
            making = out.with_suffix('.making')
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            if name == 'objects':
                subprocess.run([given.python_with_pybullet, __file__, 'render', str(making)],
                               check=True)
            else:
                MAKERS[name](making, given.folder / 'downloads')
            making.rename(out)
        count = len(list(out.rglob('*.*')))
        print(f'{out}: {count} pictures of {len(list(out.iterdir()))} classes')


def unpacked(package: str, downloads: Path) -> Path:
    """Where the files of a Debian package lie."""
    target = downloads / package
    if not target.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(['apt-get', 'download', package], cwd=downloads, check=True)
        archive = next(downloads.glob(f'{package}_*.deb'))
        subprocess.run(['dpkg', '-x', str(archive), str(target)], check=True)
    return target / 'usr' / 'share'


def save(image: Image.Image, folder: Path, name: str) -> None:
    """Write a picture into its class."""
    folder.mkdir(exist_ok=True)
    image.convert('RGB').save(folder / f'{name}.png')


def on_white(path: Path) -> Image.Image:
    """A picture of at most `EDGE` pixels, what is transparent in it white."""
    image = Image.open(path).convert('RGBA')
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    ground = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(ground, image).convert('RGB')


def differs(image: Image.Image, others: list[np.ndarray]) -> bool:
    """Whether a picture is none of the others, drawn again in another size; joins it to them."""
    small = np.asarray(image.resize((24, 24)), np.float32)
    if any(np.abs(small - other).mean() < 10 for other in others):
        return False
    others.append(small)
    return True


def make_glyphs(out: Path, downloads: Path) -> None:
    """Five typefaces of 400 characters."""
    import retrieval.registry  # noqa: F401
    from retrieval.datasets import Glyphs

    draw = random.Random(0)
    by_class: dict[str, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for split in ('train', 'test'):
        dataset = Glyphs(split)
        for row in range(len(dataset)):
            info = dataset[row]
            code = str(info['sample_id']).split('/')[0].replace('+', '')
            by_class[f'{split}{int(info["gt_label"]):04d}'].append((code, info['img'][..., 0]))
    for label in draw.sample(sorted(by_class), 400):
        for number, (_, pixels) in enumerate(draw.sample(by_class[label], 5)):
            save(Image.fromarray(pixels), out / label, str(number))


def make_emoji(out: Path, downloads: Path) -> None:
    """500 emoji by four vendors; neither flags nor colours of skin."""
    downloads.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for vendor in VENDORS:
        package = f'emoji-datasource-{vendor}'
        folder = downloads / package
        if not folder.exists():
            subprocess.run(['npm', 'pack', f'{package}@{EMOJI_VERSION}'], cwd=downloads, check=True)
            folder.mkdir()
            subprocess.run(['tar', 'xzf', f'../{package}-{EMOJI_VERSION}.tgz'], cwd=folder,
                           check=True)
        for path in (folder / 'package' / 'img' / vendor / '64').glob('*.png'):
            if not re.search('1f3f[b-f]|1f1[ef]', path.stem):
                found[path.stem][vendor] = path
    whole = sorted(code for code, by in found.items() if len(by) == len(VENDORS))
    for code in random.Random(0).sample(whole, 500):
        for vendor, path in found[code].items():
            save(on_white(path), out / code, vendor)


def icons_of(theme: Path) -> Iterator[tuple[str, Path]]:
    """Each name of a theme with its picture that is nearest to `EDGE`, from 32 pixels on."""
    best: dict[str, tuple[int, Path]] = {}
    for path in sorted(theme.rglob('*.png')):
        size = next((int(match[1]) for part in reversed(path.parts[:-1])
                     if (match := re.match(r'(\d+)(x\d+)?$', part))), 0)
        if size >= 32 and not path.stem.endswith('-symbolic'):
            off = abs(size - EDGE)
            if path.stem not in best or off < best[path.stem][0]:
                best[path.stem] = off, path
    for name, (_, path) in best.items():
        yield name, path.resolve()


def make_icons(out: Path, downloads: Path) -> None:
    """Names that at least three themes draw, and each in its own way."""
    found: dict[str, list[Path]] = defaultdict(list)
    for package, folder in THEMES:
        taken: set[Path] = set()
        for name, path in icons_of(unpacked(package, downloads) / 'icons' / folder):
            if path.is_file() and path not in taken:  # other names of a picture are links to it
                taken.add(path)
                found[name].append(path)
    drawn: list[np.ndarray] = []
    for name in sorted(name for name, paths in found.items() if len(paths) >= 3):
        own: list[np.ndarray] = []
        pictures = [image for image in map(on_white, found[name]) if differs(image, own)]
        if len(pictures) >= 3 and differs(pictures[0], drawn):
            for number, image in enumerate(pictures[:6]):
                save(image, out / name, str(number))


def make_stamps(out: Path, downloads: Path) -> None:
    """Every other stamp, four times on a wallpaper."""
    draw = random.Random(0)
    grounds = [Image.open(path).convert('RGB').resize((640, 400))
               for package in WALLPAPERS
               for path in sorted((unpacked(package, downloads)).rglob('*.jp*g'))
               if path.is_file() and not path.is_symlink()]
    drawn: list[np.ndarray] = []
    root = unpacked(STAMPS, downloads) / 'tuxpaint' / 'stamps'
    for number, path in enumerate(sorted(root.rglob('*.png'))[::2]):
        if path.stem.endswith(('_mirror', '_flip')) or not differs(on_white(path), drawn):
            continue
        stamp = Image.open(path).convert('RGBA')
        stamp.thumbnail((2 * EDGE, 2 * EDGE), Image.Resampling.LANCZOS)
        for view in range(4):
            save(view_of(stamp, draw.choice(grounds), draw), out / f'{number:04d}_{path.stem}',
                 str(view))


def view_of(stamp: Image.Image, ground: Image.Image, draw: random.Random) -> Image.Image:
    """The stamp at a random size, turn, place and light on a crop of the ground."""
    left, top = draw.randrange(640 - 2 * EDGE), draw.randrange(400 - 2 * EDGE)
    image = ground.crop((left, top, left + 2 * EDGE, top + 2 * EDGE)).resize((EDGE, EDGE))
    edge = draw.uniform(0.45, 0.9) * EDGE
    scale = edge / max(stamp.size)
    part = stamp.resize([max(8, round(side * scale)) for side in stamp.size])
    part = part.rotate(draw.uniform(-40, 40), expand=True, resample=Image.Resampling.BICUBIC)
    place = [draw.randint(min(0, EDGE - side), max(0, EDGE - side)) for side in part.size]
    image.paste(part, (place[0], place[1]), part)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        image = enhance(image).enhance(draw.uniform(0.6, 1.4))
    return image


def render_objects(out: Path) -> None:
    """300 shapes from five directions each."""
    import pybullet
    import pybullet_data

    draw = random.Random(0)
    pybullet.connect(pybullet.DIRECT)
    root = Path(pybullet_data.getDataPath())
    shapes = sorted((root / 'random_urdfs').glob('*/*.urdf'))
    for path in draw.sample(shapes, 300):
        pybullet.resetSimulation()
        body = pybullet.loadURDF(str(path), globalScaling=1)
        low, high = map(np.array, pybullet.getAABB(body))
        centre, reach = (low + high) / 2, float(np.linalg.norm(high - low))
        for view in range(5):
            pybullet.changeVisualShape(body, -1, rgbaColor=[
                *(draw.uniform(0.2, 1) for _ in range(3)), 1])
            yaw, pitch = draw.uniform(0, 360), draw.uniform(-60, 60)
            camera = pybullet.computeViewMatrixFromYawPitchRoll(
                centre.tolist(), reach * draw.uniform(1.1, 1.6), yaw, pitch,
                draw.uniform(-30, 30), 2)
            lens = pybullet.computeProjectionMatrixFOV(45, 1, reach / 20, reach * 5)
            light = [draw.uniform(-1, 1), draw.uniform(-1, 1), draw.uniform(0.3, 1)]
            *_, pixels, _, segments = pybullet.getCameraImage(
                EDGE, EDGE, camera, lens, lightDirection=light, shadow=0,
                renderer=pybullet.ER_TINY_RENDERER)
            image = np.reshape(pixels, (EDGE, EDGE, 4))[..., :3].astype(np.uint8)
            image[np.reshape(segments, (EDGE, EDGE)) < 0] = [draw.randrange(256) for _ in range(3)]
            save(Image.fromarray(image), out / path.stem, str(view))


MAKERS: dict[str, Callable[..., None]] = {
    'glyphs': make_glyphs, 'icons': make_icons, 'stamps': make_stamps, 'objects': render_objects,
    'emoji': make_emoji}

if __name__ == '__main__':
    if sys.argv[1:2] == ['render']:
        render_objects(Path(sys.argv[2]))
    else:
        main()
