"""The benchmark: what it measures is really done, and its tables follow from the times."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from own_code import definitions

from mixcut.config import Config
from mixcut.data import load
from mixcut.evaluate import crop_logits
from mixcut.model import folded
from mixcut.train import start, train_batches

B = definitions("benchmark.ipynb")
COLUMNS = ["section", "case", "round", "amount", "seconds"]
TINY = Config(width=0.05, batch_size=32, device="cpu", precision="fp32", lr=0.05, init="identity")


@pytest.fixture(scope="module")
def faces():
    return load("drawn", train=160, valid=24, test=0)


def test_cases_take_turns_and_the_first_call_is_not_counted():
    called = []
    times = B.in_turn("x", {name: (3, lambda name=name: called.append(name)) for name in "abc"}, 3)
    assert called == [*"abc", *"abc", *"bca", *"cab"]
    assert len(times) == 9 and (times.amount == 3).all()
    assert (times.groupby("round").case.nunique() == 3).all()


def test_a_share_is_of_the_product_in_the_same_precision():
    amounts = {"matrix product": 10, "matrix product, bf16": 40, "this package": 20, "this package, fp32": 8,
               "plain recipe": 5}
    times = pd.DataFrame([("training", name, 0, n, 1.0) for name, n in amounts.items()], columns=COLUMNS)
    shares = B.training_table(times, 1).set_index("what")["% of the matrix rate"]
    assert shares.to_dict() == {"this package": 50, "this package, fp32": 80, "plain recipe": 50}
    single = times[times.case != "matrix product, bf16"]
    assert B.training_table(single, 1)["% of the matrix rate"].iloc[0] == 200


def test_mixers_are_compared_with_torchvision_round_by_round():
    seconds = {"mixup, this package": [2, 4], "mixup, torchvision": [1, 2], "cutout, this package": [3, 3]}
    rows = [("mixers", name, k, 1, both[k]) for name, both in seconds.items() for k in (0, 1)]
    found = B.mixers_table(pd.DataFrame(rows, columns=COLUMNS)).set_index("method")
    assert found["× torchvision"].fillna(0).to_dict() == {"Cutout": 0, "Mixup": 2}
    assert found["this package (µs)"].tolist() == [3e6, 3e6]


@pytest.mark.parametrize("precision, name", [("fp32", "this package"), ("bf16", "this package"),
                                             ("bf16", "this package, fp32"), ("fp32", "plain recipe"),
                                             ("fp32", "torchvision v2")])
def test_each_loop_learns(faces, precision, name):
    torch.manual_seed(0)
    n, step = B.loops(replace(TINY, precision=precision), faces.train)[name]
    losses = [step() for _ in range(60)]
    assert n == 32 and all(np.isfinite(losses)) and np.mean(losses[-15:]) < np.mean(losses[:15])


def test_the_recipes_ten_crops_are_ours(faces):
    state = start(TINY, 8, 44)
    with torch.no_grad():
        for images, _ in train_batches(faces.train, TINY):
            state.model(images)  # running statistics that are not 0 and 1
    ours = crop_logits(folded(state.model), faces.valid.images, 44).softmax(2).mean(0)
    assert torch.allclose(ours, B.plain_ten_crops(state.model, faces.valid, 44, 7), atol=1e-5)


@pytest.mark.parametrize("name", list(B.counterparts(8)), ids=", ".join)
def test_what_mixers_are_compared_with_mixes(faces, name):
    torch.manual_seed(0), np.random.seed(0)  # noqa: NPY002 -- what timm draws from
    images, labels = faces.train.images[:32, :, :44, :44].float() / 255, faces.train.labels[:32]
    mixed, soft = B.counterparts(8)[name](images.clone(), labels)
    assert mixed.shape == images.shape and not torch.equal(mixed, images)
    assert name[1] == "kornia" or soft.shape == (32, 8)
