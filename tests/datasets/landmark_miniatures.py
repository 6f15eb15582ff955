"""Landmarks and re-identification in miniature, in the official layouts."""
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = np.random.default_rng(7).integers(40, 216, (64, 3))


def picture(path, kind=0, number=0, size=(20, 16)):
    """A noisy picture in the colour of its kind, ``size`` (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng((kind, number)).normal(0, 60, (size[1], size[0], 3))
    pixels = (COLORS[kind % 64] + noise.mean(axis=(0, 1)) * 8 + noise / 2).clip(0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)


def make_revisited(root, name='roxford5k', queries=4, rows=30, protocol=4):
    """``name/gnd_name.pkl`` and ``name/jpg/`` below ``root``; returns the ground truth."""
    numbers = np.random.default_rng(len(name))
    imlist = [f'building_{row:06d}' for row in range(rows)]
    qimlist = [f'query_{row:06d}' for row in range(queries)]
    gnd = []
    for query in range(queries):
        kinds = [row for row in numbers.permutation(rows).tolist() if row % 4 != (query + 1) % 4]
        parts = np.split(np.array(kinds[:12]), [query, 6])  # the first query has no easy image
        gnd.append({'bbx': [2.4, 1.6, 17.5, 12.0], 'easy': parts[0].tolist(),
                    'hard': parts[1], 'junk': parts[2].astype(np.int64)})
    folder = Path(root) / name
    for row, image in enumerate(imlist):
        picture(folder / 'jpg' / f'{image}.jpg', row % 4, row)
    for row, image in enumerate(qimlist):
        picture(folder / 'jpg' / f'{image}.jpg', row % 4, 100 + row)
    truth = {'imlist': imlist, 'qimlist': qimlist, 'gnd': gnd}
    (folder / f'gnd_{name}.pkl').write_bytes(pickle.dumps(truth, protocol))
    return truth


def landmark_id(split, number):
    """An id of 16 hexadecimal characters."""
    return f'{number * 7919 % 4096:03x}{"tei".index(split[0]):x}{number:012x}'


def make_google_landmarks(root, images=64, landmarks=16):
    """Training images, an index and queries; returns the solution as ``{query: [index ids]}``."""
    root = Path(root)
    train = [landmark_id('train', number) for number in range(images)]
    index = [landmark_id('index', number) for number in range(40)]
    label = {name: 1000 - 10 * (number % landmarks) for number, name in enumerate(train)}
    for split, names in (('train', train), ('index', index)):
        for number, name in enumerate(names):
            picture(root / split / name[0] / name[1] / name[2] / f'{name}.jpg', number % 8, number)
    lines = [f'{name},http://x/{name}.jpg,{label[name]}' for name in train]
    (root / 'train.csv').write_text('\n'.join(['id,url,landmark_id', *lines]) + '\n')
    by_label = {value: [name for name in train if label[name] == value]
                for value in sorted(set(label.values()))}
    lines = [f'{value},{" ".join(names)}' for value, names in by_label.items()]
    (root / 'train_clean.csv').write_text('\n'.join(['landmark_id,images', *lines]) + '\n')
    (root / 'index.csv').write_text('\n'.join(['id', *index]) + '\n')
    solution, lines = {}, ['id,images,Usage']
    for number in range(6):
        name = landmark_id('eval', number)
        usage = ('Public', 'Private', 'Ignored')[number % 3]
        other = 7 - number
        solution[name] = [] if usage == 'Ignored' else index[number::8] + index[other:other + 1]
        lines.append(f'{name},{" ".join(solution[name]) or "None"},{usage}')
        picture(root / 'test' / name[0] / name[1] / name[2] / f'{name}.jpg', number, 50 + number)
    (root / 'retrieval_solution_v2.1.csv').write_text('\n'.join(lines) + '\n')
    return solution


MARKET = {  # the names of the files by folder; -1 is junk, 0000 a distractor
    'bounding_box_train': [f'{person:04d}_c{camera}s1_{person:06d}_0{camera}.jpg'
                           for person in (2, 7, *range(10, 50, 2)) for camera in (1, 2, 3, 4)],
    'query': [f'{person:04d}_c{camera}s1_{person:06d}_00.jpg'
              for person in (1, 3, 5) for camera in (1, 2)],
    'bounding_box_test': [
        *(f'{person:04d}_c{camera}s{take}_{person:06d}_0{take}.jpg'
          for person in (1, 3, 5) for camera in (1, 2, 3) for take in (1, 2)),
        *(f'0000_c{camera}s1_00000{camera}_01.jpg' for camera in (1, 2, 3, 4)),
        '-1_c1s1_000401_03.jpg', '-1_c3s2_000402_03.jpg']}


def make_market1501(root):
    """The three folders, and the files that lie beside the images."""
    for folder, names in MARKET.items():
        for number, name in enumerate(names):
            picture(Path(root) / folder / name, int(name.split('_')[0]) % 64, number, (8, 16))
        (Path(root) / folder / 'Thumbs.db').write_bytes(b'')


VERI = {
    'train': [f'{car:04d}_c{camera:03d}_{car * 5:08d}_0.jpg'
              for car in range(1, 17) for camera in (1, 2, 3, 20)],
    'query': [f'{car:04d}_c{camera:03d}_{car * 5:08d}_0.jpg'
              for car in (30, 31) for camera in (1, 2)],
    'test': [f'{car:04d}_c{camera:03d}_{car * 5:08d}_{take}.jpg'
             for car in (30, 31) for camera in (1, 2, 3) for take in (0, 1)]}


def make_veri776(root, labels=True):
    """The three folders, their lists, and the labels in GB2312."""
    root = Path(root)
    for part, names in VERI.items():
        for name in names:
            picture(root / f'image_{part}' / name, 0, int(name[:9].replace('_c', '')) * 2 + int(
                name[-5]))
        (root / f'name_{part}.txt').write_text('\r\n'.join(names) + '\r\n')
        if labels and part != 'query':
            items = ''.join(f'<Item imageName="{name}" vehicleID="{name[:4]}" cameraID="c001" '
                            f'colorID="{int(name[:4]) % 11}" typeID="{int(name[:4]) % 10}" />\n'
                            for name in names)
            text = f'<?xml version="1.0" encoding="gb2312" ?>\n<TrainingImages Version="1.0">' \
                   f'<!-- 车辆 --><Items number="{len(names)}">{items}</Items></TrainingImages>'
            (root / f'{part}_label.xml').write_bytes(text.encode('gb2312'))


MAKERS = {'google_landmarks_v2': make_google_landmarks, 'market1501': make_market1501,
          'veri776': make_veri776, 'revisited_oxford': make_revisited,
          'revisited_paris': lambda root: make_revisited(root, 'rparis6k')}


def data_roots(config_name, root):
    """Make the data sets that a config names; the environment variables that lead to them.

    Where a config names two, the first is for training.
    """
    names = sorted((name for name in MAKERS if name in config_name), key=config_name.index)
    for name in names:
        MAKERS[name](Path(root) / name)
    variables = ['TRAIN_DATA_ROOT', 'DATA_ROOT'][-len(names):] if names else []
    return {variable: str(Path(root) / name)
            for variable, name in zip(variables, names, strict=True)}
