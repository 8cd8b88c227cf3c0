"""Batches and seeded transforms, for tests of the mixers."""
import torch

from mixcut.augment import TRANSFORMS, make_transform

PAIRS = ["mixup", "cutmix", "mixcut"]
FORMS = [(aug, {}) for aug in TRANSFORMS] + [(aug, {"per_sample": True}) for aug in ("cutout", *PAIRS)]


def faces(n=6, channels=3, height=12, width=12):
    """Images in [0, 1), and labels of four classes."""
    draws = torch.Generator("cpu").manual_seed(n)
    return torch.rand(n, channels, height, width, generator=draws), torch.arange(n) % 4


def used(aug, seed=1, **options):
    """A transform for four classes with its own generator; unless told otherwise, it changes every batch."""
    given = {"gamma": None if aug == "baseline" else 1.0,
             "generator": torch.Generator("cpu").manual_seed(seed)}
    return make_transform(aug, 4, **{**given, **options})
