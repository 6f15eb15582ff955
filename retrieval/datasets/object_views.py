"""Pictures of the thousand objects that ``pybullet`` ships, in random views, light and background.

Every picture is a function of the object's number and the view's, so that everybody who has the
package has the same pictures.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

EDGE = 128  # of a picture; it is rendered at twice that
#: What lies behind the objects: pictures of the package, beside plain colours and gradients.
TEXTURES = ('jenga/jenga.png', 'table/table.png', 'tray/tray.jpg', 'checker_grid.jpg', 'duckCM.png',
            'roboschool/models_outdoor/stadium/stadium_grass.jpg', 'cube.png', 'colors16.png',
            'heightmaps/gimp_overlay_out.png', 'heightmaps/wm_height_out.png')


class ObjectRenderer:
    """Renders on the CPU, one object after another, in one thread.

    Attributes:
        objects: the numbers of the objects, which the package names by three digits.

    Raises:
        ImportError: ``pybullet`` is not installed.

    Example:
        >>> from importlib.util import find_spec
        >>> if find_spec('pybullet'):
        ...     assert next(ObjectRenderer().views(7, 1)).size == (EDGE, EDGE)
    """

    def __init__(self) -> None:
        try:
            import pybullet
            import pybullet_data
        except ImportError as error:
            raise ImportError('The objects are rendered by pybullet, which is not installed: '
                              'pip install pybullet.') from error
        self._bullet: Any = pybullet
        self._root = Path(pybullet_data.getDataPath())
        self._client = pybullet.connect(pybullet.DIRECT)
        self.objects = sorted(int(path.name) for path in (self._root / 'random_urdfs').iterdir()
                              if re.fullmatch('[0-9]{3}', path.name))

    def views(self, number: int, count: int) -> Iterator[Image.Image]:
        """Pictures of an object, RGB and :data:`EDGE` pixels wide and high.

        Args:
            number: of the object, from :attr:`objects`.
            count: how many.
        """
        bullet, client = self._bullet, dict(physicsClientId=self._client)
        bullet.resetSimulation(**client)
        path = self._root / 'random_urdfs' / f'{number:03}' / f'{number:03}.urdf'
        body = bullet.loadURDF(str(path), **client)
        low, high = map(np.array, bullet.getAABB(body, **client))
        for view in range(count):
            yield self._picture((low + high) / 2, float(np.linalg.norm(high - low)),
                                Random(f'{number}/{view}'))

    def _picture(self, centre: np.ndarray, reach: float, random: Random) -> Image.Image:
        bullet, edge = self._bullet, 2 * EDGE
        target = [value + random.uniform(-.12, .12) * reach for value in centre]
        camera = bullet.computeViewMatrixFromYawPitchRoll(
            target, reach * random.uniform(1.1, 1.8), random.uniform(0, 360),
            random.uniform(-80, 20), random.uniform(-25, 25), 2)
        lens = bullet.computeProjectionMatrixFOV(45, 1, reach / 20, reach * 5)
        brightness, ambient = random.uniform(.6, 1.15), random.uniform(.3, .6)
        *_, pixels, _, segments = bullet.getCameraImage(
            edge, edge, camera, lens,
            lightDirection=[random.uniform(-1, 1), random.uniform(-1, 1), random.uniform(.2, 1)],
            lightColor=[brightness * random.uniform(.8, 1) for _ in range(3)],
            lightAmbientCoeff=ambient, lightDiffuseCoeff=1 - ambient,
            lightSpecularCoeff=random.uniform(0, .5), shadow=1,
            renderer=bullet.ER_TINY_RENDERER, physicsClientId=self._client)
        shown = np.reshape(pixels, (edge, edge, 4))[..., :3].astype(np.uint8)
        behind = np.reshape(segments, (edge, edge))[..., None] < 0
        ground = np.asarray(self._background(edge, random))
        whole = Image.fromarray(np.where(behind, ground, shown))
        return whole.resize((EDGE, EDGE), Image.Resampling.BOX)

    def _background(self, edge: int, random: Random) -> Image.Image:
        """A plain colour, a gradient of two, or a tinted part of a texture."""
        kind = random.random()
        first, second = ([random.randrange(256) for _ in range(3)] for _ in range(2))
        if kind < .2:
            return Image.new('RGB', (edge, edge), (first[0], first[1], first[2]))
        if kind < .4:
            slope = np.linspace(0, 1, edge)[:, None, None]
            mixed = np.broadcast_to(slope * first + (1 - slope) * second, (edge, edge, 3))
            image = Image.fromarray(mixed.astype(np.uint8))
            return image.rotate(random.choice((0, 90, 180, 270)))
        texture = random.choice(self._textures)
        side = random.randint(edge // 2, min(texture.size))
        left = random.randint(0, texture.width - side)
        top = random.randint(0, texture.height - side)
        part = texture.crop((left, top, left + side, top + side)).resize((edge, edge))
        tinted = Image.blend(part, Image.new('RGB', part.size, (first[0], first[1], first[2])),
                             random.uniform(0, .5))
        return tinted.filter(ImageFilter.GaussianBlur(random.uniform(0, 4)))

    @cached_property
    def _textures(self) -> list[Image.Image]:
        found = []
        for name in TEXTURES:
            image = Image.open(self._root / name).convert('RGB')
            scale = 512 / min(image.size)
            found.append(image.resize((round(image.width * scale), round(image.height * scale))))
        return found


def licence() -> str:
    """The licence of the package whose objects are rendered, with its version."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        package = distribution('pybullet')
    except PackageNotFoundError:  # it lies on the path without having been installed
        return 'pybullet, zlib licence\n'
    text = package.read_text('LICENSE.txt') or package.read_text('licenses/LICENSE.txt') or ''
    return f'pybullet {package.version}, zlib licence\n\n{text}'
