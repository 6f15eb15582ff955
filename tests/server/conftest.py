"""A small model, a folder of plain pictures in three classes, and servers over them, in-process."""
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import nn

from retrieval.gallery import Gallery, GalleryStore
from retrieval.retrievers import ImageToImageRetriever
from retrieval.server.app import create_app
from retrieval.server.follow import follow_folder, follow_store
from retrieval.server.served import Served
from retrieval.server.service import Service, Source

PIPELINE = [dict(type='LoadImage'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
URL = 'http://127.0.0.1:8000'
COLOURS = {'red': (230, 20, 20), 'green': (20, 230, 20), 'blue': (20, 20, 230)}


def encoder():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


def picture(colour, number):
    """A plain picture with a grey bar, whose width is the number."""
    pixels = np.full((40, 60, 3), colour, np.uint8)
    pixels[:, :3 * number] = 128
    return Image.fromarray(pixels)


def write_pictures(folder, each=4):
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            exif = Image.Exif()
            exif[0x0110], exif[0x0132] = f'Cam {name}', f'20{20 + number}:05:31 10:00:00'
            exif.get_ifd(0x8825)[1] = 'N'  # a place
            picture(colour, number).save(folder / name / f'{number}.png', exif=exif)


def jpeg(image):
    import io
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=95)
    return out.getvalue()


@pytest.fixture
def services():
    """Makes services, and ends them."""
    made = []

    def make(source, prototype=None, read_only=False, **options):
        model = ImageToImageRetriever(encoder(), prototype, topk=10).eval()
        service = Service(Served(model, PIPELINE, **options), source, read_only)
        made.append(service)
        return service
    yield make
    for service in made:
        service.close()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'pictures'
    write_pictures(path)
    return path


@pytest.fixture
def folder_service(services, folder, tmp_path):
    service = services(Source('pictures', tmp_path / 'state', str(folder)),
                       cache=tmp_path / 'cache.safetensors')
    follow_folder(service)
    service.refresh()
    service._fact_reader.join()
    return service


@pytest.fixture
def client(folder_service):
    return ask(folder_service)


def ask(service, **options):
    """A client of a service, without its start and end."""
    return TestClient(create_app(service, **options), base_url=URL, raise_server_exceptions=False)


@pytest.fixture
def store_service(services, tmp_path):
    """Five rows of width 12 in a store."""
    torch.manual_seed(1)
    gallery = Gallery(torch.randn(5, 12), 'abcde', ['x', 'x', 'y', 'y', 'y'],
                      metadata=dict(year=[2019, 2020, 2021, 2022, 2023]))
    store = GalleryStore.create(tmp_path / 's.gallery', gallery)
    service = services(Source('s', tmp_path / 'state'), store.load(copy=True), store=store)
    follow_store(service)
    return service
