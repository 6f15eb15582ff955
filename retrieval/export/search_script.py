"""Find the pictures in a folder that look most like others: python search.py FOLDER PICTURE …"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def pixels(path: str | Path, facts: dict[str, Any]) -> np.ndarray:
    """A picture as the encoder takes it, (1, C, H, W) uint8."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, image.convert('RGBA'))
    image = image.convert('L' if facts['image'][0] == 1 else 'RGB')
    for step, *size, method in facts['geometry']:
        width, height = image.size
        if step == 'resize_edge':
            edge = dict(short=min(image.size), long=max(image.size), width=width, height=height)
            size = [round(length * size[0] / edge[size[1]]) for length in image.size]
        if step == 'crop':
            left, top = round((width - size[0]) / 2), round((height - size[1]) / 2)
            image = image.crop((left, top, left + size[0], top + size[1]))
        elif method == 'SAMPLE':  # four neighbours, however much it shrinks
            scale = (width / size[0], 0, 0, 0, height / size[1], 0)
            image = image.transform(size, Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)
        else:
            image = image.resize(size, Image.Resampling[method])
    array = np.asarray(image).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None])


def search(folder: str, queries: list[str], k: int = 5) -> list[list[tuple[float, str]]]:
    """For each query the paths of the most similar pictures in a folder, with their similarity."""
    facts = json.loads((HERE / 'export.json').read_text())
    session = onnxruntime.InferenceSession(HERE / 'encoder.onnx')
    paths = sorted(path for path in Path(folder).rglob('*')
                   if path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp'))
    rows, wanted = (np.concatenate([session.run(None, {'images': pixels(path, facts)})[0]
                                    for path in some]) for some in (paths, queries))
    if facts['similarity'] == 'cosine_similarity':
        faiss.normalize_L2(rows)
        faiss.normalize_L2(wanted)
    far = facts['similarity'] == 'euclidean'
    index = (faiss.IndexFlatL2 if far else faiss.IndexFlatIP)(rows.shape[1])
    index.add(rows)
    return [[(float(-score ** 0.5 if far else score), str(paths[row]))
             for score, row in zip(*found, strict=True)]
            for found in zip(*index.search(wanted, min(k, len(paths))), strict=True)]


if __name__ == '__main__':
    for query, results in zip(sys.argv[2:], search(sys.argv[1], sys.argv[2:]), strict=True):
        print(query, *(f'  {score:.4f}  {path}' for score, path in results), sep='\n')
