"""Measure where the detector's box lies in FER2013's images: `python reports/detectors/crops.py FACES`.

FACES holds the data set. Each of 1,200 validation images is enlarged and set into a margin of its own border,
like a face in a photo; the networks see it as it is, and cut out again around the detector's box.
"""
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from mixcut.data import load
from mixcut.predict import WEIGHTS, cut_out, find_faces, load_network


def as_photo(image, size=144):
    """A face as it lies in a photo: enlarged to `size` pixels, with a margin of half of that around it."""
    large = Image.fromarray(image[0].numpy()).resize((size, size), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large), size // 2, mode="edge")[..., None].repeat(3, 2)


def right(network, images, labels):
    predicted = torch.cat([network(part).argmax(1) for part in images.split(64)])
    return 100 * (predicted == labels).double().mean().item()


if __name__ == "__main__":
    faces = load("fer2013plus", sys.argv[1]).valid
    photos = [as_photo(image) for image in faces.images[:1200]]
    boxes = {k: find_faces(photo) for k, photo in enumerate(photos)}
    found = {k: box[0] for k, box in boxes.items() if len(box) == 1}
    top, left, side = (np.array(list(found.values())).T - [[72], [72], [0]]) / 144
    again = torch.cat([cut_out(photos[k], box, 48, 1) for k, box in found.items()])
    rows = {"images": len(photos), "with one box": len(found),
            "median side of the box, images": np.median(side),
            "median centre, down": np.median(top + side / 2),
            "median centre, right": np.median(left + side / 2)}
    kept = list(found)
    for name in WEIGHTS:
        network = load_network(name)
        rows[f"{name}: right as they are, %"] = right(network, faces.images[kept], faces.labels[kept])
        rows[f"{name}: right cut out again, %"] = right(network, again, faces.labels[kept])
    table = pd.Series(rows, name="value").rename_axis("measured").round(3)
    table.to_csv(Path(__file__).parent / "crops.csv", lineterminator="\n")
    print(table)
