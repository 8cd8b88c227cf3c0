"""What must not change when code moves: draws, first batches, weights, splits of layouts, old records.

`pytest tests/test_golden.py --golden` writes the values anew; a commit that means to move one says so."""
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import config, dataset

import mixcut.data as D
import mixcut.miniatures as M
from mixcut import augment, train
from mixcut.config import Config
from mixcut.records import load_run
from mixcut.train import generator, start, train_batches, train_epoch

HERE = Path(__file__).parent
REPORTS = HERE.parent / "reports"
METHODS = ("baseline", "cutout", "mixup", "cutmix", "mixcut", "random-erasing", "hide-and-seek")


def draws():
    """Each method's λ and boxes for ten batches of 16 and three seeds."""
    found = {}
    for aug in METHODS:
        for seed in (0, 1, 4):
            transform = Config(aug=aug).transform(8, generator(seed, "mix", 1))
            drawn = [transform.draw(16, 44, 44) for _ in range(10)] if aug != "baseline" else []
            lams, boxes = [d.lam[0].item() for d in drawn], [float(d.box.double().mean()) for d in drawn]
            orders = [float((d.order * torch.arange(16)).sum()) for d in drawn]
            found[f"{aug}, seed {seed}"] = lams + boxes + orders
    return found


def batches(tmp_path):
    """The sums of the images and of the labels of an epoch's first batches."""
    found = {}
    for aug in METHODS:
        epoch = train_batches(dataset().train, config(tmp_path, aug=aug, seed=3), epoch=2)
        for images, labels in list(epoch)[:3]:
            where = torch.arange(images[0].numel()).view(images[0].shape) % 97
            pixels = (images.double() ** 2 * where).sum().item()
            shares = (labels.double() ** 2 * torch.arange(1, 4)).sum().item()
            found.setdefault(aug, []).extend([pixels, shares])
    return found


def weights(tmp_path, monkeypatch):
    """Two epochs in float64, without dropout, whose draws differ between builds of torch."""
    monkeypatch.setattr(train, "to_float", partial(augment.to_float, dtype=torch.float64))
    monkeypatch.setattr(augment, "soften", partial(augment.soften, dtype=torch.float64))
    found = {}
    for aug in ("baseline", "mixcut"):
        chosen = config(tmp_path, aug=aug, dropout=0)
        state = start(chosen, 3, 32)
        state.model.double()
        losses = [train_epoch(state, dataset(train=25).train, chosen, epoch) for epoch in (1, 2)]
        weights = state.model.state_dict().values()
        found[aug] = losses + [value.double().abs().sum().item() for value in weights]
    return found


def splits(tmp_path):
    """The labels and pixels of every layout, written in miniature."""
    images = (torch.arange(24 * 48 * 48) % 251).byte().view(24, 1, 48, 48)
    votes = np.eye(10, dtype=int)[np.arange(24) % 10] * 6 + np.eye(10, dtype=int)[np.arange(24) % 3] * 4
    usage = ["Training"] * 14 + ["PublicTest"] * 4 + ["PrivateTest"] * 6
    M.write_fer_csv(tmp_path / "csv", images, votes, usage)
    M.write_fer_csv(tmp_path / "icml", images, votes, usage, icml=True)
    M.write_fer_folders(tmp_path / "folders", images, votes, usage)
    M.write_votes(tmp_path / "folders" / "fer2013new.csv", votes, usage)
    colour = (torch.arange(20 * 3 * 100 * 100) // 300 % 256).byte().view(20, 3, 100, 100)
    for name, mirror in (("tree", False), ("mirror", True)):
        split = ["train"] * 14 + ["test"] * 6
        M.write_rafdb(tmp_path / name, colour, torch.arange(20) % 7, split, mirror=mirror)
    M.write_digits(tmp_path / "digits")
    kinds = {"csv": "fer2013plus", "icml": "fer2013plus", "folders": "fer2013plus", "tree": "rafdb",
             "mirror": "rafdb", "digits": "folder"}
    found = {}
    for folder, kind in kinds.items():
        for name, split in D.load(kind, tmp_path / folder).splits.items():
            grey = round(split.images.double().mean().item() * 4) / 4
            exact = split.fingerprint() if kind != "rafdb" else None  # JPEG decoders differ by a grey level
            found.setdefault(folder, {})[name] = [len(split), split.labels.tolist()[:20], grey, exact]
    return found


def check(request, name, found):
    path = HERE / "golden.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if request.config.getoption("golden"):
        path.write_text(json.dumps(known | {name: found}, indent=0, sort_keys=True) + "\n")
        return
    assert found.keys() == known[name].keys()
    for key, values in found.items():
        if isinstance(values, dict):
            assert values == known[name][key], key
        else:
            near = pytest.approx(known[name][key], rel=1e-5 if name != "weights" else 1e-8, abs=1e-9)
            assert values == near, key


def test_draws(request):
    check(request, "draws", draws())


def test_first_batches(request, tmp_path):
    check(request, "batches", batches(tmp_path))


def test_weights_after_two_epochs(request, tmp_path, monkeypatch):
    check(request, "weights", weights(tmp_path, monkeypatch))


@pytest.mark.filterwarnings("ignore::mixcut.data.DataWarning")
def test_splits_of_every_layout(request, tmp_path):
    check(request, "splits", splits(tmp_path))


@pytest.mark.parametrize("name, least", [("older-votes", 7), ("demo", 34), ("digits", 25)])
def test_old_records_load(name, least):
    runs = [load_run(path.parent) for path in sorted(REPORTS.glob(f"{name}/**/metrics.json"))]
    assert len(runs) >= least
    for run in runs:
        measured = run.metrics["splits"][run.metrics["measured"]]
        assert 0 < run.score("last") <= 100 and len(run.labels) == measured["n"]

