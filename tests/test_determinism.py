"""Which bits are the same where: draws on every machine, runs on one machine with one number of threads."""
import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import config, dataset, quiet

from mixcut.augment import TRANSFORMS, make_transform
from mixcut.data import load
from mixcut.train import Config, batch_indices, fit, generator, make_model, train_batches

# Whole numbers and comparisons only: these are the same on every machine. A change of a draw is a change of every result, and shows here.
EXPECTED = {}


def digest(*parts):
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def order(seed):
    return digest(torch.cat(batch_indices(1000, 64, generator(seed, "order", 3))).numpy())


def boxes(aug, seed):
    transform = make_transform(aug, 8, generator=generator(seed, "mix", 1))
    drawn = [transform.draw(64, 44, 44) for _ in range(50)]
    return digest(*(part.numpy() for d in drawn for part in (d.used, d.order, d.box)))
