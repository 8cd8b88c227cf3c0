"""Make the weights that the package carries: `python reports/weights/make.py RUNS FACES`.

RUNS holds the finished runs of `-p profile mini -p dataset fer2013plus -p epochs 250`, FACES the data set.
Weights become half precision; what they predict for the test split is measured and kept in their header.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import mixcut
from mixcut.data import load
from mixcut.predict import WEIGHTS, load_network
from mixcut.records import weights_digest


def halve(source, target, **more):
    """Save weights in half precision, with `more` in their header."""
    with safe_open(source, "pt") as file:
        header, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    more["weights"] = weights_digest(weights)
    save_file(weights, target, header | {name: json.dumps(value) for name, value in more.items()})


@torch.inference_mode()
def measure(network, test, recorded):
    """Compare a network's ten-crop predictions with those that the run recorded."""
    labels = test.labels.numpy()
    predicted = torch.cat([network(part) for part in test.images.split(64)]).argmax(1).numpy()
    return {"images": len(labels), "right": int((predicted == labels).sum()),
            "as recorded": int((predicted == recorded.argmax(1)).sum()), "mixcut": mixcut.__version__}


if __name__ == "__main__":
    runs, test = Path(sys.argv[1]) / "mini/fer2013plus", load("fer2013plus", sys.argv[2]).test
    for name, path in WEIGHTS.items():
        folder = runs / name / "seed0"
        halve(folder / "model.safetensors", path)
        with np.load(folder / "predictions.npz") as arrays:
            found = measure(load_network(name), test, arrays["test_probabilities"])
        halve(folder / "model.safetensors", path, measured=found)
        print(name, found)
