"""Which bits are the same where: draws on every machine, runs on one machine with one number of threads."""
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_train import config, dataset, quiet

from mixcut.augment import random_crop
from mixcut.config import Config
from mixcut.data import load
from mixcut.records import load_run
from mixcut.train import batch_indices, fit, generator

# Draws of whole numbers and comparisons are the same on every machine: a change here changes every result.
EXPECTED = {
    "order": {0: "75a743e33268ee2b", 1: "cd015340c1708c9c", 4: "7cc8468c891233b2"},
    "crops": {0: "c3d0b47e438e8200", 1: "ac8e304782c80526", 4: "2f4418728b5ed524"},
    "cutout": {0: "98ceac6a18627bfa", 1: "71e3e75c23cf8a7f", 4: "ac5015a139cf82b8"},
    "mixup": {0: "728e9903d28331e6", 1: "8d254c5f91597ba6", 4: "a85b85aa543f6b78"},
    "cutmix": {0: "53d1b0fdf6b71889", 1: "9dc5665b3bf03eb0", 4: "ea9383988500e281"},
    "mixcut": {0: "d2a92497f486d69a", 1: "94812f853a7683bf", 4: "fd68670309e8d04f"},
    "labels": [25, 23, 32, 13, 26, 25, 25, 31],
    "mean": 107.435,
}


def digest(*parts):
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def order(seed):
    return digest(*(part.numpy() for part in batch_indices(1000, 64, generator(seed, "order", 3))))


def crops(seed):
    images = (torch.arange(64 * 48 * 48) % 251).byte().view(64, 1, 48, 48)
    return digest(random_crop(images, 44, generator(seed, "crop", 2)).numpy())


def draws(aug):
    def of(seed):
        transform = Config(aug=aug).transform(8, generator(seed, "mix", 1))
        drawn = [transform.draw(64, 44, 44) for _ in range(50)]
        return digest(*(part.numpy() for d in drawn for part in (d.used, d.order, d.box)))
    return of


MADE = {
    "order": order,
    "crops": crops,
    **{aug: draws(aug) for aug in ("cutout", "mixup", "cutmix", "mixcut")},
}


@pytest.mark.parametrize("seed", [0, 1, 4])
@pytest.mark.parametrize("what", MADE)
def test_draws_are_the_same_everywhere(what, seed):
    assert MADE[what](seed) == EXPECTED[what][seed]


def test_drawn_faces_are_the_same_everywhere_but_for_rounding():
    """Their pixels and votes come out of sums and roots, so another processor may round one differently."""
    data = load("drawn", train=200, valid=0, test=0)
    assert np.abs(data.train.labels.bincount(minlength=8).numpy() - EXPECTED["labels"]).sum() <= 4
    assert abs(data.train.images.float().mean().item() - EXPECTED["mean"]) < 0.01


CODE = """
import json, sys
from mixcut.config import Config
from mixcut.data import load
from mixcut.train import fit
data = load("drawn", train=2000, valid=100, test=400)
given = {"aug": "baseline", "epochs": 4, "width": 0.125, "lr": 0.03, "init": "identity", "dropout": 0.1}
config = Config(runs=sys.argv[1], seed=int(sys.argv[2]), schedule="one-cycle", device="cpu",
                precision="fp32", **given)
run = fit(config, data, lambda *a, **k: None)
print(json.dumps(run.score("last")))
"""


def trained(folder, seed, threads):
    """A run in a process of its own: its accuracy, its predictions, a digest of its weights."""
    words = [sys.executable, "-c", CODE, str(folder), str(seed)]
    process = subprocess.run(
        words,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    [path] = folder.rglob("model.safetensors")
    return (
        json.loads(process.stdout),
        load_run(path.parent).probabilities,
        digest(np.frombuffer(path.read_bytes()[-4000:], np.uint8)),
    )


def test_one_number_of_threads_gives_one_result(tmp_path, pytestconfig, record):
    """Sums in another order round differently, and training amplifies it: by how much is recorded."""
    rows = []
    for seed in range(1 if pytestconfig.getoption("kills") < 50 else 3):
        found = {
            name: trained(tmp_path / f"{seed}-{name.replace(' ', '')}", seed, threads)
            for name, threads in (("1", 1), ("1 again", 1), ("2", 2), ("2 again", 2))
        }
        for threads in ("1", "2"):
            assert (
                found[threads][0] == found[f"{threads} again"][0]
                and np.array_equal(found[threads][1], found[f"{threads} again"][1])
                and found[threads][2] == found[f"{threads} again"][2]
            )
        agree = 100 * (found["1"][1].argmax(1) == found["2"][1].argmax(1)).mean()
        rows.append((seed, found["1"][0], found["2"][0], agree))
        record(
            f"seed {seed}, twice with one thread, twice with two",
            4,
            f"same bits for the same threads; {found['1'][0]:.2f} % with one, {found['2'][0]:.2f} % with "
            f"two, {agree:.1f} % of the predictions alike",
        )
    assert all(agree > 50 for *_, agree in rows)  # of runs that have learned


def test_deterministic_takes_only_such_algorithms(tmp_path):
    """On the CPU the bits are the same. Other algorithms are forbidden inside, and allowed after."""
    seen = []
    first = fit(
        config(tmp_path / "a"),
        dataset(),
        lambda text, last=False: seen.append(torch.are_deterministic_algorithms_enabled()),
    )
    second = fit(
        config(tmp_path / "b", deterministic=True),
        dataset(),
        lambda text, last=False: seen.append(torch.are_deterministic_algorithms_enabled() or last),
    )
    assert seen.count(True) >= 2 and not torch.are_deterministic_algorithms_enabled()
    assert np.array_equal(first.probabilities, second.probabilities)


def test_other_runs_beside_change_nothing(tmp_path):
    """A seed's draws are its own: what another run or the reader drew in the same process does not matter."""
    first = fit(config(tmp_path / "a"), dataset(), quiet)
    torch.manual_seed(99), torch.rand(7), np.random.rand(3)
    fit(config(tmp_path / "b", seed=5), dataset(), quiet)
    assert np.array_equal(first.probabilities, fit(config(tmp_path / "c"), dataset(), quiet).probabilities)
