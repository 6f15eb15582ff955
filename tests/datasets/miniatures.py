"""The metric-learning benchmarks in miniature, in their official layouts, as tests write them."""
import json

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path, number=0, size=(24, 24)):
    """A JPEG of noise that depends on ``number``, ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path, *lines):
    """A text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return path


def make_cub200(root, rows):
    """``rows``: (class, path below images/, box as x y width height)."""
    for number, (_, name, _) in enumerate(rows, 1):
        picture(root / 'images' / name, number)
    write(root / 'images.txt', *(f'{n} {name}' for n, (_, name, _) in enumerate(rows, 1)))
    write(root / 'image_class_labels.txt', *(f'{n} {label}' for n, (label, *_) in
                                             enumerate(rows, 1)))
    write(root / 'bounding_boxes.txt', *(' '.join(map(str, (n, *box))) for n, (*_, box) in
                                         enumerate(rows, 1)))
    return root


CARS_FIELDS = ('relative_im_path', 'bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'test')


def write_cars_annotations(path, rows, names, fields=CARS_FIELDS):
    """``cars_annos.mat``: a struct array of one row, and a cell array of the class names."""
    table = np.empty((1, len(rows)), dtype=[(field, 'O') for field in fields])
    for number, row in enumerate(rows):
        table[0, number] = tuple(row)
    cells = np.empty((1, len(names)), dtype=object)
    cells[0, :] = names
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {'annotations': table, 'class_names': cells})
    return path


def make_cars196(root, rows):
    """``rows``: (class, box as MATLAB counts it); the class of number n is called ``Car n``."""
    named = [(f'car_ims/{number:06d}.jpg', *box, label, number % 2)
             for number, (label, box) in enumerate(rows, 1)]
    for number, (name, *_) in enumerate(named, 1):
        picture(root / name, number)
    write_cars_annotations(root / 'cars_annos.mat', named, [f'Car {n}' for n in range(1, 197)])
    return root


def make_products(root, train, test):
    """``train`` and ``test``: (class id, super class id, path)."""
    number = 0
    for split, rows in (('train', train), ('test', test)):
        lines = ['image_id class_id super_class_id path']
        for label, parent, name in rows:
            number += 1
            picture(root / name, number)
            lines.append(f'{number} {label} {parent} {name}')
        write(root / f'Ebay_{split}.txt', *lines)
    return root


def make_inshop(root, rows, partition='Eval', images='Img/img'):
    """``rows``: (path below img/, item id, status); the two folders as people have them."""
    lines = [str(len(rows)), 'image_name item_id evaluation_status']
    for number, (name, item, status) in enumerate(rows):
        picture(root / images / name, number)
        lines.append(f'{"img/" + name:<70} {item} {status}      ')
    write(root / partition / 'list_eval_partition.txt', *lines)
    return root


def make_inaturalist2018(root, rows, folder='Inat_dataset_splits'):
    """``rows``: (super category, category id, image name, annotation file, split)."""
    names = [f'train_val2018/{parent}/{label}/{name}.jpg' for parent, label, name, *_ in rows]
    for number, name in enumerate(names):
        picture(root / name, number)
    categories = [{'id': label, 'name': f'hidden {label}', 'supercategory': parent}
                  for parent, label in sorted({row[:2] for row in rows})]
    for part in ('train', 'val'):
        chosen = [number for number, row in enumerate(rows) if row[3] == part]
        write(root / f'{part}2018.json', json.dumps({
            'images': [{'id': 100 + number, 'file_name': names[number]} for number in chosen],
            'annotations': [{'id': 500 + number, 'image_id': 100 + number,
                             'category_id': rows[number][1]} for number in chosen],
            'categories': categories}))
    for split in ('train', 'test'):
        write(root / folder / f'Inaturalist_{split}_set1.txt',
              *(name for name, row in zip(names, rows, strict=True) if row[4] == split))
    return root


def make_objects(root, numbers):
    """Ten views of each object."""
    for number in numbers:
        for view in range(10):
            picture(root / 'images' / f'{number:03}' / f'{view}.jpg', 10 * number + view)
    return root


def trainable(root, classes=20, images=4):
    """Every benchmark, large enough for a batch of 16 classes; their folders by the config's name.

    Each has ``classes`` classes for training and as many for testing.
    """
    trained = [(n, k) for n in range(1, classes + 1) for k in range(images)]
    both = [('train', n, k) for n, k in trained] + [('test', 100 + n, k) for n, k in trained]
    folders = {name: root / name for name in ('cub200', 'cars196', 'stanford_online_products',
                                              'inshop', 'inaturalist2018', 'objects')}
    make_cub200(folders['cub200'], [(n, f'{n:03d}.Bird/{k}_{n}.jpg', (2, 2, 18, 18))
                                    for _, n, k in both])
    make_cars196(folders['cars196'], [(n, (2, 2, 20, 20)) for _, n, _ in both])
    make_products(folders['stanford_online_products'], *(
        [(n, n % 2 + 1, f'{("mug", "lamp")[n % 2]}_final/{n}_{k}.JPG')
         for split, n, k in both if split == wanted] for wanted in ('train', 'test')))
    make_inshop(folders['inshop'], [
        (f'MEN/Denim/id_{n:08d}/{k:02d}_1_front.jpg', f'id_{n:08d}',
         'train' if split == 'train' else ('query', 'gallery')[k % 2]) for split, n, k in both])
    make_inaturalist2018(folders['inaturalist2018'], [
        (('Aves', 'Fungi')[n % 2], n, f'{n}_{k}', 'val' if k == 0 else 'train', split)
        for split, n, k in both])
    make_objects(folders['objects'], range(2 * classes))
    return folders
