"""Covered faces, calibration and recall, on networks that were trained for it."""
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from test_train import config, dataset, quiet

import mixcut.beyond as B
from mixcut.beyond import FILLS, REGIONS, Settings, by_method, calibration, calibration_error, cover, further, look_at_all, look_covered
from mixcut.data import load
from mixcut.evaluate import Predictions
from mixcut.records import COVERED, RunError, load_run
from mixcut.predict import PredictError
from mixcut.report import ReportError, collect, find_runs, load_runs, records
from mixcut.train import fit

DRAWN = {"train": 64, "valid": 0, "test": 24}


@pytest.fixture
def trained(tmp_path):
    """Two finished runs on drawn faces, as a grid leaves them."""
    data = load("drawn", **DRAWN)
    made = [config(tmp_path / "runs", aug=aug, dataset="drawn", data_options=DRAWN, profile="demo", epochs=1) for aug in ("baseline", "mixcut")]
    for one in made:
        fit(one, data, quiet)
    return tmp_path / "runs", data, made


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (44, 44), (100, 101)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_covered(size, channels):
    images = torch.randint(1, 256, (3, channels, *size), dtype=torch.uint8)
    before = images.clone()
    for region, (top, left, bottom, right) in REGIONS.items():
        for fill in FILLS:
            covered = cover(images, region, fill)
            assert covered.shape == images.shape and covered.dtype == torch.uint8 and torch.equal(images, before)
            share = (covered == 0).float().mean().item() if fill == "black" else None
            assert share is None or abs(share - (bottom - top) * (right - left)) <= 1 / min(size)
    left, right = (cover(images, half) for half in ("left half", "right half"))
    assert torch.equal(torch.maximum(left, right), images) and (torch.minimum(left, right) == 0).all()


def test_the_mean_is_each_images_own():
    images = torch.stack([torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (0, 100, 255)])
    assert torch.equal(cover(images, "mouth", "mean"), images)


def test_calibration_is_scikit_learns():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(8) / 2, 4000)
    labels = np.where(rng.random(4000) < 0.7, probabilities.argmax(1), rng.integers(0, 8, 4000))
    bins = calibration(probabilities, labels)
    accuracy, confidence = calibration_curve(probabilities.argmax(1) == labels, probabilities.max(1), n_bins=15)
    assert np.allclose(bins.accuracy, accuracy) and np.allclose(bins.confidence, confidence) and bins.images.sum() == 4000
    by_hand = sum(abs((probabilities.argmax(1) == labels)[inside].mean() - probabilities.max(1)[inside].mean()) * inside.sum()
                  for k in range(15) if (inside := (probabilities.max(1) > k / 15) & (probabilities.max(1) <= (k + 1) / 15)).any()) / 40
    assert calibration_error(bins) == pytest.approx(by_hand)


def test_a_run_is_looked_at_once(trained):
    runs, data, made = trained
    settings = Settings(runs=str(runs), profile="demo")
    for one in made:
        assert load_run(one.folder).covered is None
    (made[1].folder / "model.safetensors").rename(runs / "elsewhere")
    assert look_at_all(settings, quiet) == ["drawn, baseline, seed 0: looked at", "drawn, mixcut, seed 0: its weights are not there"]
    (runs / "elsewhere").rename(made[1].folder / "model.safetensors")
    assert look_at_all(settings, quiet) == ["drawn, mixcut, seed 0: looked at"]
    assert look_at_all(settings, quiet) == []
    run = load_run(made[0].folder)
    assert len(run.covered) == 1 + len(REGIONS) * len(FILLS) and all(len(predicted) == len(data.test) for predicted in run.covered.values())
    assert (run.covered["none"] == run.probabilities.argmax(1)).all()


def test_other_images_and_torn_weights_are_refused(trained):
    runs, data, made = trained
    with pytest.raises(RunError, match="asks for its own images and weights"):
        look_covered(made[0].folder, load("drawn", **DRAWN, seed=1).test)
    with pytest.raises(RunError, match="0.0 % of the predictions"):
        look_covered(made[0].folder, data.test[:5])
    told = json.loads((made[0].folder / "metrics.json").read_text())
    told["config"]["data_options"]["test"] = 20  # as if the folder had changed
    (made[0].folder / "metrics.json").write_text(json.dumps(told))
    with pytest.raises(ReportError, match="made of other images"):
        look_at_all(Settings(runs=str(runs), profile="demo"), quiet)
    weights = bytearray((made[1].folder / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (made[1].folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(PredictError, match="torn"):
        look_covered(made[1].folder, data.test)
    assert not any((one.folder / COVERED).exists() for one in made)


def test_a_record_of_another_run_or_a_torn_one_is_named(trained):
    _, data, (first, second) = trained
    look_covered(first.folder, data.test)
    shutil.copy(first.folder / COVERED, second.folder)
    with pytest.raises(RunError, match=f"{COVERED}: not of this run"):
        load_run(second.folder)
    content = (first.folder / COVERED).read_bytes()
    for cut in (0, 10, len(content) // 2):
        (first.folder / COVERED).write_bytes(content[:cut])
        with pytest.raises(RunError, match="cannot be used"):
            load_run(first.folder)
    fit(replace(first, overwrite=True), data, quiet)  # nothing of the run before stays beside the new one
    assert load_run(first.folder).covered is None


def test_what_was_seen_later_is_collected(trained, tmp_path):
    runs, data, (first, second) = trained
    collect(runs, tmp_path / "kept", "demo")
    assert [run.covered for run in load_runs(tmp_path / "kept/runs")[0]] == [None, None]
    look_at_all(Settings(runs=str(runs), profile="demo"), quiet)
    kept, left = records(Settings(runs=str(runs), out=str(tmp_path), profile="demo"))
    assert not left and all(run.covered for run in load_runs(tmp_path / "runs")[0] + kept)
    fit(replace(first, overwrite=True), data, quiet)
    collect(runs, tmp_path, "demo")
    found = {run.metrics["cell"]: run.covered is not None for _, run in find_runs(tmp_path / "runs")[0]}
    assert found == {"baseline": False, "mixcut": True}


def test_views_of_runs(trained):
    runs, data, _ = trained
    look_at_all(Settings(runs=str(runs), profile="demo"), quiet)
    found = load_runs(runs)[0]
    [section] = further(found, "drawn").values()
    names = [item.name for item in section]
    assert names == [f"{name}-drawn" for name in ("covered-figure", "covered", "calibration-figure", "calibration", "recall-figure", "recall")]
    assert section[1].frame.columns[2:].tolist() == list(found[0].covered) and section[1].frame.n.tolist() == ["1", "0", "0", "0", "1"]
    recall = by_method(found, "drawn", B.recalls)
    mine = recall[recall.method == "MixCut"].set_index("what").value
    right = found[1].probabilities.argmax(1) == found[1].labels
    for k, name in enumerate(found[1].metrics["classes"]):
        here = found[1].labels == k
        assert not here.any() or mine[f"{name} ({here.sum()})"] == pytest.approx(100 * right[here].mean())


def test_a_dataset_with_a_class_that_is_not_there():
    labels = np.array([0, 0, 2, 2])
    run = B.Run({"classes": ["a", "b", "c"], "measured": "test"}, None, {"test": Predictions(np.eye(3)[labels].astype(np.float32), labels)})
    assert B.recalls(run) == {"a (2)": 100, "c (2)": 100, "mean of the classes": 100}
    assert B.sureness(run)["ECE (points)"] == 0
