"""Altered copies of photographs, to measure on what a search and a threshold find again.

The alterations are those that Copydays (Douze et al., CIVR 2009) and DISC21 (Douze et al.,
arXiv:2106.09672) are made of: re-encoding, size, crop, rotation, colour, blur, text, frame,
screenshot, a part in another picture. Each is drawn from the names of the photograph and of the
alteration alone, so that everybody who has the photographs has the same copies.
"""
from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

#: ``(x_1, y_1, x_2, y_2)`` in pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Copy:
    """An altered picture.

    Args:
        image: the copy, RGB.
        seen: the part of the original that is in it.
        place: where that part lies in the copy.
        quality: the quality of the JPEG file that it is to be written as.
    """

    image: Image.Image
    seen: Box
    place: Box
    quality: int = 90


def altered(image: Image.Image, alteration: str, name: str,
            other: Image.Image | None = None) -> Copy:
    """A copy of a photograph.

    Args:
        image: the photograph, RGB.
        alteration: a name of :data:`ALTERATIONS`.
        name: of the photograph: what is drawn depends on it and on ``alteration``.
        other: the picture into which ``pasted`` parts go.

    Raises:
        ValueError: the alteration is unknown, or needs ``other``.

    Example:
        >>> copy = altered(Image.new('RGB', (64, 48)), 'half', 'black')
        >>> copy.image.size, copy.seen, copy.place
        ((32, 24), (0, 0, 64, 48), (0, 0, 32, 24))
    """
    if alteration not in ALTERATIONS:
        raise ValueError(f'Unknown alteration {alteration!r}; there are {", ".join(ALTERATIONS)}.')
    if alteration.startswith('pasted') and other is None:
        raise ValueError(f'{alteration!r} needs another picture to paste into: give `other`.')
    return ALTERATIONS[alteration](image, Random(f'{name}/{alteration}'), other)


_Alteration = Callable[[Image.Image, Random, 'Image.Image | None'], Copy]


def _whole(image: Image.Image) -> Box:
    return 0, 0, *image.size


def _everywhere(change: Callable[[Image.Image, Random], Image.Image],
                quality: int = 90) -> _Alteration:
    """Of a change after which the whole original is in the whole copy."""
    def alter(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
        copy = change(image, random)
        return Copy(copy, _whole(image), _whole(copy), quality)
    return alter


def _scaled(share: float) -> Callable[[Image.Image, Random], Image.Image]:
    return lambda image, _: image.resize(
        (max(1, round(image.width * share)), max(1, round(image.height * share))),
        Image.Resampling.LANCZOS)


def _random_part(image: Image.Image, area: float, random: Random) -> Box:
    """A part with the picture's aspect and a share of its area."""
    width, height = round(image.width * area ** .5), round(image.height * area ** .5)
    left = random.randint(0, image.width - width)
    top = random.randint(0, image.height - height)
    return left, top, left + width, top + height


def _crop(area: float) -> _Alteration:
    def alter(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
        seen = _random_part(image, area, random)
        copy = image.crop(seen)
        return Copy(copy, seen, _whole(copy))
    return alter


def _rotated(degrees: int) -> _Alteration:
    def alter(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
        """Turned either way, and cut to the largest upright part without corners."""
        turned = image.rotate(random.choice((-degrees, degrees)), Image.Resampling.BICUBIC)
        angle = np.deg2rad(degrees)
        width, height = image.size
        # the largest part of the same aspect whose corners stay inside
        share = 1 / (np.cos(angle) + np.sin(angle) * max(width / height, height / width))
        half = width * share / 2, height * share / 2
        box = (round(width / 2 - half[0]), round(height / 2 - half[1]),
               round(width / 2 + half[0]), round(height / 2 + half[1]))
        copy = turned.crop(box)
        return Copy(copy, box, _whole(copy))
    return alter


def _tinted(image: Image.Image, random: Random) -> Image.Image:
    gains = [random.uniform(.6, 1.3) for _ in range(3)]
    return Image.fromarray((np.asarray(image) * gains).clip(0, 255).astype(np.uint8))


def _noisy(image: Image.Image, random: Random) -> Image.Image:
    noise = np.random.default_rng(random.randrange(2 ** 32)).normal(0, 20, np.asarray(image).shape)
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, round(size)))


def _text(image: Image.Image, random: Random) -> Image.Image:
    copy = image.copy()
    draw, edge = ImageDraw.Draw(copy), min(image.size)
    for line in random.sample(('SALE', 'look at this!', 'when it rains', '24 June', 'HOLIDAYS',
                               'share with friends'), 3):
        place = random.uniform(0, .5) * image.width, random.uniform(0, .85) * image.height
        colour = random.choice(('white', 'black', 'yellow', 'red'))
        draw.text(place, line, colour, _font(edge * random.uniform(.1, .18)))
    return copy


def _watermark(image: Image.Image, random: Random) -> Image.Image:
    layer = Image.new('RGBA', image.size)
    draw, edge = ImageDraw.Draw(layer), min(image.size)
    for row in range(5):
        for column in range(4):
            draw.text((image.width * (column / 3.5 - .1), image.height * row / 4.5),
                      '© stock', (255, 255, 255, 110), _font(edge * .09))
    layer = layer.rotate(20, Image.Resampling.BICUBIC)
    return Image.alpha_composite(image.convert('RGBA'), layer).convert('RGB')


def _inside(background: Image.Image, part: Image.Image, place: Box, seen: Box) -> Copy:
    """A part of the original, resized to its place in another picture."""
    size = place[2] - place[0], place[3] - place[1]
    background.paste(part.resize(size, Image.Resampling.LANCZOS), place[:2])
    return Copy(background, seen, place)


def _framed(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
    border = round(min(image.size) * random.uniform(.08, .16))
    colour = random.choice(('white', 'black', '#6b4f2a', '#888888'))
    size = image.width + 2 * border, image.height + 2 * border
    place = border, border, border + image.width, border + image.height
    return _inside(Image.new('RGB', size, colour), image, place, _whole(image))


def _screenshot(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
    """The picture as it stands in an application's window, with bars and a line of text."""
    width, height = image.size
    bar, side = round(height * .12), round(width * random.uniform(0, .2))
    screen = Image.new('RGB', (width + 2 * side, height + 3 * bar), '#f3f3f5')
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, screen.width, bar), '#30343c')
    for number in range(3):
        left = bar * (.3 + .5 * number)
        draw.ellipse((left, bar * .35, left + bar * .3, bar * .65), ('red', 'gold', 'lime')[number])
    draw.text((side + 8, height + bar * 1.5), f'{random.randint(2, 900)} people like this',
              '#202020', _font(bar * .6))
    return _inside(screen, image, (side, bar, side + width, bar + height), _whole(image))


def _pasted(area: float) -> _Alteration:
    def alter(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
        """A half of the original's area, covering a share of another picture's."""
        assert other is not None
        seen = _random_part(image, .5, random)
        part, background = image.crop(seen), other.copy()
        scale = (area * background.width * background.height / part.width / part.height) ** .5
        scale = min(scale, background.width / part.width, background.height / part.height)
        width, height = int(part.width * scale), int(part.height * scale)
        left = random.randint(0, background.width - width)
        top = random.randint(0, background.height - height)
        return _inside(background, part, (left, top, left + width, top + height), seen)
    return alter


def _several(image: Image.Image, random: Random, other: Image.Image | None) -> Copy:
    """What a picture has behind it that went around: cut, mirrored, written on, small, coarse."""
    seen = _random_part(image, .7, random)
    copy = _text(ImageOps.mirror(_scaled(.5)(image.crop(seen), random)), random)
    return Copy(copy, seen, _whole(copy), 25)


def _encoded(quality: int) -> Callable[[Image.Image, Random], Image.Image]:
    """Through a JPEG file, so that the copy is coarse wherever it is written to."""
    def encode(image: Image.Image, random: Random) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, 'JPEG', quality=quality)
        return Image.open(buffer).convert('RGB')
    return encode


#: Each alteration by its name.
ALTERATIONS: dict[str, _Alteration] = {
    'jpeg-35': _everywhere(_encoded(35)),
    'jpeg-8': _everywhere(_encoded(8)),
    'half': _everywhere(_scaled(.5)),
    'eighth': _everywhere(_scaled(.125)),
    'crop-80': _crop(.8), 'crop-50': _crop(.5), 'crop-20': _crop(.2),
    'turned': _everywhere(lambda image, _: image.transpose(Image.Transpose.ROTATE_90)),
    'rotated-4': _rotated(4), 'rotated-15': _rotated(15),
    'mirrored': _everywhere(lambda image, _: ImageOps.mirror(image)),
    'brighter': _everywhere(lambda image, _: ImageEnhance.Brightness(image).enhance(1.6)),
    'darker': _everywhere(lambda image, _: ImageEnhance.Brightness(image).enhance(.45)),
    'contrast': _everywhere(lambda image, _: ImageEnhance.Contrast(image).enhance(2)),
    'grey': _everywhere(lambda image, _: image.convert('L').convert('RGB')),
    'tinted': _everywhere(_tinted),
    'blurred': _everywhere(
        lambda image, _: image.filter(ImageFilter.GaussianBlur(min(image.size) / 80))),
    'noisy': _everywhere(_noisy),
    'text': _everywhere(_text),
    'watermark': _everywhere(_watermark),
    'framed': _framed,
    'screenshot': _screenshot,
    'pasted-50': _pasted(.5), 'pasted-20': _pasted(.2),
    'several': _several,
}


def unique_motifs(pictures: Iterable[tuple[str, Image.Image]], limit: float = 0.8,
                  detail: float = 2.0) -> Iterator[tuple[str, Image.Image]]:
    """The pictures that show something, and whose motif did not come before.

    Two pictures have one motif where their brightness in 16 x 16 fields correlates by more than
    ``limit`` either way: a wallpaper by day and by night, or in two sizes.

    Args:
        pictures: names and pictures.
        limit: of the correlation, up to 1.
        detail: how much neighbours of 64 x 64 fields differ at least, in levels of 255: what is
            all but one colour has nothing to be found by.

    Example:
        >>> steps = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(64, 0))
        >>> pictures = [('a', steps), ('darker', steps.point(lambda value: value // 2)),
        ...             ('turned', steps.rotate(90)), ('grey', Image.new('L', (64, 64), 99))]
        >>> [name for name, _ in unique_motifs(pictures, detail=1)]
        ['a', 'turned']
    """
    seen: list[np.ndarray] = []
    for name, picture in pictures:
        fields = _fields(picture, 64)
        if sum(np.abs(np.diff(fields, axis=axis)).mean() for axis in (0, 1)) / 2 < detail:
            continue
        small = _fields(picture, 16).ravel()
        small -= small.mean()
        small /= np.linalg.norm(small)
        if not seen or np.abs(np.stack(seen) @ small).max() <= limit:
            seen.append(small)
            yield name, picture


def _fields(picture: Image.Image, edge: int) -> np.ndarray:
    """The mean brightness of ``edge`` x ``edge`` fields."""
    return np.asarray(picture.convert('L').resize((edge, edge), Image.Resampling.BOX),
                      dtype=np.float64)
