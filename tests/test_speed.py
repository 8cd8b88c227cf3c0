"""The benchmark: what it measures is really done, its tables follow from the times, and its records come back."""
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mixcut import speed as S
from mixcut.data import load
from mixcut.pages import ROOT
from mixcut.speed import Case, Settings, SpeedError
from mixcut.config import Config, ConfigError


@pytest.fixture(scope="module")
def faces():
    return load("drawn", train=160, valid=24, test=0)


@pytest.fixture(scope="module")
def tiny():
    return Config(width=0.05, batch_size=32, device="cpu", precision="fp32")


def test_cases_take_turns_and_the_first_call_is_not_counted():
    called = []
    times = S.in_turn("x", {name: Case(lambda name=name: called.append(name), 3) for name in "abc"}, 3)
    assert called == [*"abc", *"abc", *"bca", *"cab"]
    assert len(times) == 9 and (times.amount == 3).all() and (times.groupby("round").case.nunique() == 3).all()


def test_ratios_are_taken_round_by_round():
    # the machine is twice as slow in round 1; the ratio does not see it
    rows = [("x", "a", 0, 10, 1.0), ("x", "b", 0, 10, 2.0), ("x", "a", 1, 10, 2.0), ("x", "b", 1, 10, 4.0)]
    found = S.compare(pd.DataFrame(rows, columns=["section", "case", "round", "amount", "seconds"]), "x", "b").set_index("what")
    assert found["× b"].tolist() == [2.0, 1.0] and found["range of ×"].tolist() == ["2.00–2.00", "1.00–1.00"]
    assert found["images/s"].tolist() == [7.5, 3.75] and found.n.tolist() == [2, 2]


def test_times_of_another_section_are_refused():
    with pytest.raises(SpeedError, match="no times of 'y'"):
        S.rates(pd.DataFrame(columns=["section", "case", "round", "amount", "seconds"]), "y")


def test_a_share_is_of_the_product_in_the_same_precision():
    cases = {"matrix product": 10, "matrix product, bf16": 40, "this package": 20, "this package, fp32": 8, "plain recipe": 5}
    times = pd.DataFrame([("training", case, 0, amount, 1.0) for case, amount in cases.items()], columns=["section", "case", "round", "amount", "seconds"])
    assert S.loops_table(times, 1).set_index("what")["% of the matrix rate"].to_dict() == {"this package": 50, "this package, fp32": 80, "plain recipe": 50}
    bf16 = times.case == "matrix product, bf16"
    assert S.loops_table(times[~bf16], 1)["% of the matrix rate"].iloc[0] == 200


@pytest.mark.parametrize("precision, name", [("fp32", "this package"), ("bf16", "this package"), ("bf16", "this package, fp32"), ("fp32", "plain recipe"), ("fp32", "torchvision v2")])
def test_each_loop_learns(faces, tiny, precision, name):
    case = S.loops(Config(**{**vars(tiny), "lr": 0.05, "init": "identity", "precision": precision}), faces.train, 5)[name]
    losses = [case.call() for _ in range(12)]
    assert case.amount == 5 * 32 and all(np.isfinite(losses)) and np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_recipes_ten_crops_are_ours(faces, tiny):
    state = S.start(tiny, 8, 44)
    with torch.no_grad():
        for images, _ in S.train_batches(faces.train, tiny):
            state.model(images)  # running statistics that are not 0 and 1
    ours = S.measure(state, faces.valid, 44, 10).softmax(2).mean(0)
    assert torch.allclose(ours, S.plain_ten_crops(state.model, faces.valid, 44, 7), atol=1e-5)


@pytest.mark.parametrize("name", list(S.counterparts(8)), ids=", ".join)
def test_what_mixers_are_compared_with_mixes(faces, name):
    images, labels = faces.train.images[:32, :, :44, :44].float() / 255, faces.train.labels[:32]
    mixed, soft = S.counterparts(8)[name](images.clone(), labels)
    assert mixed.shape == images.shape and not torch.equal(mixed, images) and (name[1] == "kornia" or soft.shape == (32, 8))


def test_layouts_hold_the_same_faces(tmp_path):
    warnings.simplefilter("ignore")
    (tmp_path / "data").mkdir()
    found = S.layouts(tmp_path / "data", 40)
    assert list(found) == ["FER+ folders", "RAF-DB mirror", "RAF-DB tree", "fer2013.csv", "icml_face_data.csv"]
    loaded = {layout: load(name, root) for layout, (name, root) in found.items()}
    assert torch.equal(loaded["FER+ folders"].train.images, loaded["fer2013.csv"].train.images)
    assert torch.equal(loaded["icml_face_data.csv"].test.labels, loaded["fer2013.csv"].test.labels)
    assert sum(len(s) for s in loaded["RAF-DB tree"].splits.values()) == 40


def test_a_failed_process_says_so():
    with pytest.raises(SpeedError, match="ZeroDivisionError"):
        S.elsewhere("1 / 0")


def test_a_mapped_file_is_read_whole(tmp_path):
    scans = S.scaling(tmp_path, (1000, 3000), 1)
    assert scans.images.tolist() == [1000, 3000] and (scans.seconds > 0).all() and not list(tmp_path.iterdir())
    assert S.scaling_table(scans)["as float32 (MB)"].tolist() == [9.216, 27.648]


@pytest.mark.parametrize("given, match", [({"rounds": 0}, "rounds"), ({"width": -1}, "width"), ({"batch_size": 1}, "batch_size"), ({"faces": 3}, "faces")])
def test_settings_are_checked(given, match):
    with pytest.raises(SpeedError, match=match):
        Settings(**given)


def test_an_unknown_precision_is_refused_before_anything_is_measured():
    with pytest.raises(ConfigError, match="precision"):
        S.results(Settings(measure=True, precision="fp8"))


def test_no_records_says_how_to_make_them(tmp_path):
    with pytest.raises(SpeedError, match="measure True"):
        S.results(Settings(out=str(tmp_path)))


def test_a_whole_benchmark_comes_back_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(S, "PROFILES", {"demo": S.PROFILES["demo"]})
    settings = Settings(measure=True, out=str(tmp_path), width=0.1, batch_size=16, looks=8, rounds=1, faces=40, largest=1000, seconds=0.2, seeds=1)
    measured = S.results(settings)
    again = S.results(Settings(out=str(tmp_path)))
    for title, frame in S.tables(measured).items():
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), S.tables(again)[title].reset_index(drop=True), check_dtype=False, rtol=1e-4)
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    assert (S.tables(again)["Training"]["% of the matrix rate"] > 0).all() and "precision" in again["setup"].name.tolist()


def test_a_part_is_measured_anew(tmp_path, monkeypatch):
    out = tmp_path / "records"
    shutil.copytree(ROOT / "reports" / "benchmark", out)
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    monkeypatch.setattr(S, "memory_table", lambda settings: pd.DataFrame({"what": ["nothing"], "peak (MB)": [12345.6]}))
    S.results(Settings(measure=True, out=str(out), only="memory"))
    changed = {path.name for path in out.glob("*.csv") if path.read_bytes() != before[path.name]}
    assert changed == {"memory.csv", "setup.csv"} and "| nothing" in (out / "memory.md").read_text() and "12,346" in (out / "memory.md").read_text()
    assert "commit, memory" in S.read(out)["setup"].name.tolist()
    with pytest.raises(S.SpeedError, match="give out"):
        S.results(Settings(measure=True, only="memory"))
    with pytest.raises(S.SpeedError, match="choose from times, scans"):
        Settings(only="memry")
