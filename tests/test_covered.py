"""Covered faces, batch norm and calibration, on networks that were trained for it."""
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from own_code import definitions
from scipy.stats import ttest_1samp
from sklearn.calibration import calibration_curve
from test_run import done, papermill
from test_train import config, quiet

from mixcut.data import load
from mixcut.predict import PredictError
from mixcut.records import RunError, load_run
from mixcut.train import fit

C = definitions("covered.ipynb")
DRAWN = {"train": 64, "valid": 0, "test": 24}


@pytest.fixture
def trained(tmp_path):
    """Two finished runs on drawn faces, as a grid leaves them."""
    data = load("drawn", **DRAWN)
    options = {"dataset": "drawn", "data_options": DRAWN, "profile": "demo", "epochs": 1}
    made = [config(tmp_path / "runs", aug=aug, **options) for aug in ("baseline", "mixcut")]
    for one in made:
        fit(one, data, quiet)
    return tmp_path / "runs", data, made


def covered(one):
    return C.load_covered(one.folder, load_run(one.folder))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (44, 44), (100, 101)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_covered(size, channels):
    images = torch.randint(1, 256, (3, channels, *size), dtype=torch.uint8)
    before = images.clone()
    for region, (top, left, bottom, right) in C.REGIONS.items():
        black, mean = C.cover(images, region, "black"), C.cover(images, region, "mean")
        assert black.shape == mean.shape == images.shape and torch.equal(images, before)
        share = (black == 0).float().mean().item()
        assert abs(share - (bottom - top) * (right - left)) <= 1 / min(size)
        assert torch.equal(mean[black != 0], images[black != 0])
    left, right = (C.cover(images, half, "black") for half in ("left half", "right half"))
    assert torch.equal(torch.maximum(left, right), images) and (torch.minimum(left, right) == 0).all()


def test_the_mean_is_each_images_own():
    images = torch.stack([torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (0, 100, 255)])
    assert torch.equal(C.cover(images, "mouth", "mean"), images)


def test_calibration_is_scikit_learns():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(8) / 2, 4000)
    sure = probabilities.max(1)
    labels = np.where(rng.random(4000) < 0.7, probabilities.argmax(1), rng.integers(0, 8, 4000))
    right = probabilities.argmax(1) == labels
    bins = C.calibration(probabilities, labels)
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    assert np.allclose(bins.accuracy, accuracy) and np.allclose(bins.confidence, confidence)
    parts = [(sure > k / 15) & (sure <= (k + 1) / 15) for k in range(15)]
    error = sum(abs(right[part].mean() - sure[part].mean()) * part.sum() for part in parts if part.any()) / 40
    assert C.calibration_error(bins) == pytest.approx(error)


def test_an_interval_is_students_over_a_methods_own_seeds():
    values = {"Baseline": (1, 2, 6), "MixCut": (5, 6)}
    rows = [(method, seed, "x", value) for method, of in values.items() for seed, value in enumerate(of)]
    rows = pd.DataFrame(rows, columns=["method", "seed", "what", "value"])
    rows["method"] = pd.Categorical(rows.method, ["Baseline", "Mixup", "MixCut"])
    low, high = ttest_1samp(values["Baseline"], 0).confidence_interval()
    found = C.summary(rows).set_index("method")
    assert found.x.fillna("").tolist() == [f"3.00 ± {(high - low) / 2:.2f}", "", "5.50"]  # two are too few
    assert found.n.tolist() == [3, 0, 2]


def test_each_run_is_predicted_once(trained, tmp_path):
    runs, data, made = trained
    (made[1].folder / "model.safetensors").rename(tmp_path / "elsewhere")
    C.predict_all(runs, "demo", None, None)
    assert [covered(one) is None for one in made] == [False, True]
    (tmp_path / "elsewhere").rename(made[1].folder / "model.safetensors")
    before = (made[0].folder / C.COVERED).read_bytes()
    C.predict_all(runs, "demo", None, None)
    assert (made[0].folder / C.COVERED).read_bytes() == before
    for one in made:
        run = load_run(one.folder)
        assert list(covered(one)) == C.HOW and (covered(one)["none"] == run.probabilities.argmax(1)).all()
        assert all(len(predicted) == len(data.test) for predicted in covered(one).values())
        assert len(run.measured.clean) == len(data.test)


def test_predictions_reach_the_records_in_out(trained, tmp_path):
    runs, data, (first, second) = trained
    shutil.copytree(runs, tmp_path / "report" / "runs", ignore=shutil.ignore_patterns("*.safetensors"))
    fit(replace(second, overwrite=True, lr=0.001), data, quiet)  # no longer the run that was collected
    C.predict_all(runs, "demo", None, tmp_path / "report")
    records = C.runs_of(tmp_path / "report", "demo")
    for predicted in (lambda path, run: C.load_covered(path, run), lambda path, run: run.measured.clean):
        there = {run.metrics["cell"]: predicted(path, run) is not None for path, run in records}
        assert there == {"baseline": True, "mixcut": False}
    (first.folder / "model.safetensors").unlink()
    shutil.copy(second.folder / C.CLEAN, first.folder)  # of another run: the record's own stays
    C.predict_all(runs, "demo", None, tmp_path / "report")
    again = C.runs_of(tmp_path / "report", "demo")
    assert sum(run.measured.clean is not None for _, run in again) == 1
    C.predict_all(tmp_path / "report" / "runs", "demo", None, tmp_path / "report")  # onto itself


def test_other_images_and_torn_weights_are_refused(trained):
    runs, data, made = trained
    with pytest.raises(RunError, match="own images"):
        C.predict_covered(made[0].folder, load("drawn", **DRAWN, seed=1).test)
    with pytest.raises(RunError, match="does not predict what the run recorded"):
        C.predict_covered(made[0].folder, data.test[:5])
    with pytest.raises(RunError, match="own images"):
        C.predict_clean(made[0].folder, load("drawn", **DRAWN, seed=1))
    told = json.loads((made[0].folder / "metrics.json").read_text())
    told["config"]["data_options"]["test"] = 20  # as if the folder had changed
    (made[0].folder / "metrics.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match="own images"):
        C.predict_all(runs, "demo", None, None)
    weights = bytearray((made[1].folder / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (made[1].folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(PredictError, match="damaged"):
        C.predict_covered(made[1].folder, data.test)
    with pytest.raises(PredictError, match="damaged"):
        C.predict_clean(made[1].folder, data)
    assert not any((one.folder / C.COVERED).exists() for one in made)


def test_predictions_of_another_run_do_not_count(trained):
    runs, data, (first, second) = trained
    C.predict_all(runs, "demo", None, None)
    right = (second.folder / C.COVERED).read_bytes()
    for name in (C.COVERED, C.CLEAN):
        shutil.copy(first.folder / name, second.folder)
    assert covered(first) and covered(second) is None
    assert [load_run(one.folder).measured.clean is None for one in (first, second)] == [False, True]
    C.predict_all(runs, "demo", None, None)
    assert (second.folder / C.COVERED).read_bytes() == right
    fit(replace(first, overwrite=True, lr=0.001), data, quiet)  # the folder now holds another run
    assert covered(first) is None


def test_clean_statistics_are_those_of_the_crops(trained):
    _, data, (first, _) = trained
    config = load_run(first.folder).metrics["config"] | {"batch_size": 16}
    model = C.ImprovedVGG19(len(data.classes), config["crop"], config["width"])
    clean = C.with_clean_statistics(model, data.train.images[:40], config, batches=2)
    draws, means = torch.Generator().manual_seed(config["seed"]), []
    for index in torch.randperm(40, generator=draws)[:32].split(16):
        crops = C.random_crop(data.train.images[index], config["crop"], draws) / 255
        means.append(model.features[0](crops.expand(-1, 3, -1, -1)).mean((0, 2, 3)))
    assert torch.allclose(clean.features[1].running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert torch.equal(clean.features[0].weight, model.features[0].weight) and not clean.training


@pytest.mark.parametrize("given, says", [
    ({"profile": "paper"}, "no finished run of the profile paper"),
    ({"profile": "demo", "out": "~/report"}, ""),
])
def test_parameters_and_a_profile_without_runs(trained, monkeypatch, given, says):
    runs, _, made = trained
    monkeypatch.setenv("HOME", str(runs.parent))
    code, output = done(papermill(runs.parent, {}, "covered.ipynb", runs="~/runs", **given))
    assert says in output and bool(code) == bool(says)
    assert (made[0].folder / C.COVERED).exists() != bool(says) and not (runs.parent / "~").exists()


def test_damaged_predictions_are_named(trained):
    _, data, (first, _) = trained
    C.save_covered(first.folder, load_run(first.folder), C.predict_covered(first.folder, data.test))
    content = (first.folder / C.COVERED).read_bytes()
    for cut in (0, 10, len(content) // 2):
        (first.folder / C.COVERED).write_bytes(content[:cut])
        with pytest.raises(RunError, match="covered.npz is damaged"):
            covered(first)


def test_damaged_clean_predictions_are_named_and_go_with_an_overwritten_run(trained):
    _, data, (first, _) = trained
    C.save(first.folder / C.CLEAN, load_run(first.folder), **C.predict_clean(first.folder, data))
    content = (first.folder / C.CLEAN).read_bytes()
    for cut in (0, 10, len(content) // 2):
        (first.folder / C.CLEAN).write_bytes(content[:cut])
        with pytest.raises(RunError, match="clean.npz is damaged.*delete it"):
            load_run(first.folder)
    fit(replace(first, overwrite=True), data, quiet)
    assert load_run(first.folder).measured.clean is None


def test_committed_predictions_load():
    clean = [path.parent for path in C.ROOT.glob("reports/**/clean.npz")]
    assert len(clean) > 10 and all(load_run(folder).measured.clean is not None for folder in clean)
    found = [path.parent for path in C.ROOT.glob("reports/**/covered.npz")]
    assert len(found) > 10
    for folder in found:
        run = load_run(folder)
        predicted = C.load_covered(folder, run)
        assert list(predicted) == C.HOW and (predicted["none"] == run.probabilities.argmax(1)).mean() > 0.99
