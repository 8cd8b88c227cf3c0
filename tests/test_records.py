"""What a finished run leaves: each split, its copies, its last ten epochs; and what older runs left."""

import errno
import json
import os
import stat
import subprocess
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_train import config, dataset, quiet, split

from mixcut import records, train
from mixcut.config import ConfigError
from mixcut.data import Dataset, Found
from mixcut.evaluate import PROTOCOLS, confusion, plot_curve, results, summary
from mixcut.records import CHECKPOINT, RunError, differences, load_checkpoint, load_run, run_settings
from mixcut.train import fit, measured_splits, start

ROOT = Path(__file__).parent.parent


def test_a_package_inside_another_repository_is_not_its_commit(tmp_path, monkeypatch):
    """`pip install` into a project's `.venv`, as most people do."""
    package = tmp_path / ".venv" / "mixcut"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(records.mixcut, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init"], [*who, "commit", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    made = records.provenance()
    assert made["commit"] is made["dirty"] is records.git("rev-parse", "HEAD") is None
    for words in (["add", "."], [*who, "commit", "-m", "ours"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    assert len(records.git("rev-parse", "HEAD")) == 40 and records.provenance()["dirty"] is False


COPIES = {"valid": [0, 4], "test": [1, 2, 9]}


def with_copies():
    """Two validation and three test images are training images; another test image differs in a pixel."""
    data = dataset(valid=9, test=10)
    for name, places in COPIES.items():
        images = getattr(data, name).images
        for k, place in enumerate(places):
            images[place] = data.train.images[3 * k + 1]
    data.test.images[5] = data.train.images[5]
    data.test.images[5, 0, 0, 0] ^= 1
    data.valid.images[8] = data.test.images[8]  # between these two, which no accuracy leaves out
    return Dataset("folder", data.train, data.valid, data.test, Found("made", "made", "labels.csv"))


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Twelve epochs, and the folder of their records."""
    chosen = config(tmp_path_factory.mktemp("twelve"), epochs=12, lr=0.05)
    return fit(chosen, with_copies(), quiet), chosen


@pytest.mark.parametrize("name, n", [("valid", 9), ("test", 10)])
def test_every_split_has_its_last_ten_epochs(twelve, name, n):
    made, chosen = twelve
    run = load_run(chosen.folder)
    with np.load(chosen.folder / "predictions.npz") as arrays:
        assert set(arrays.files) == {
            f"{each}_{what}"
            for each in ("valid", "test")
            for what in ("probabilities", "labels", "copies", "ten_crop", "one_crop")
        }
        kept = {
            what: arrays[f"{name}_{what}"]
            for what in ("probabilities", "labels", "copies", "ten_crop", "one_crop")
        }
    for what in ("ten_crop", "one_crop"):
        assert kept[what].dtype == np.uint8 and kept[what].shape == (10, n)
    assert kept["probabilities"].shape == (n, 3) and np.array_equal(
        kept["probabilities"].argmax(1), kept["ten_crop"][-1]
    )
    assert np.flatnonzero(kept["copies"]).tolist() == COPIES[name] and run.metrics["splits"][name][
        "copies"
    ] == len(COPIES[name])
    right, others = kept["ten_crop"] == kept["labels"], ~kept["copies"]
    history = run.history.tail(10)
    assert history[f"{name}_accuracy"].tolist() == pytest.approx((100 * right.mean(1)).tolist(), rel=1e-12)
    assert history[f"{name}_without_copies"].tolist() == pytest.approx(
        (100 * right[:, others].mean(1)).tolist(), rel=1e-12
    )
    assert run.score("last10", name) == pytest.approx(100 * right.mean(), rel=1e-12)
    assert run.score("last10", name, copies=False) == pytest.approx(100 * right[:, others].mean(), rel=1e-12)
    assert run.score("last", name) == pytest.approx(100 * right[-1].mean(), rel=1e-12)
    assert run.score("last", name, copies=False) == pytest.approx(100 * right[-1, others].mean(), rel=1e-12)
    seen = run.predictions[name]
    assert np.allclose(seen.right(), right.mean(0)) and np.array_equal(
        seen.right("last"), right[-1].astype(float)
    )
    assert (
        made.metrics == run.metrics
        and list(run.metrics["splits"]) == ["valid", "test"]
        and run.metrics["label_source"] == "labels.csv"
    )


def test_the_reported_split_is_the_last_and_selection_is_on_the_first(twelve):
    run, _ = twelve
    assert (
        run.metrics["monitor"] == "valid"
        and run.metrics["measured"] == "test"
        and run.labels is run.predictions["test"].labels
    )
    best = run.history.monitor_accuracy.idxmax()
    assert (
        run.score("valid") == run.history.test_accuracy[best]
        and run.score("valid", copies=False) == run.history.test_without_copies[best]
    )
    assert run.score("valid", "valid") is None and set(run.metrics["splits"]["test"]["protocols"]) == set(
        PROTOCOLS
    )
    frame = results(run).set_index(["split", "protocol"])
    assert frame.loc[("test", "valid"), "accuracy (%)"] == run.score("valid")
    assert frame.loc[("valid", "last10"), "n"] == 9 and confusion(run).to_numpy().sum() == 10


def test_a_run_stopped_at_every_measurement_of_its_last_ten_leaves_the_same_bytes(
    twelve, tmp_path, monkeypatch
):
    """Stopped while a split is measured: the epoch is trained and measured again, and counts once."""
    plain, there = twelve
    chosen, stopped, calls, look = replace(there, runs=str(tmp_path)), set(), [], train.crop_logits

    def note(text, last=False):
        if "measuring" in text:
            calls[:] = [text.split("epoch ")[1].split()[0]]

    def stop(*given, **named):
        calls.append(look(*given, **named))
        moment = (calls[0], len(calls) - 1)
        if calls[0] in ("3", "7", "12") and moment not in stopped:
            stopped.add(moment)
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(train, "crop_logits", stop)
    while True:
        try:
            run = fit(chosen, with_copies(), note)
            break
        except KeyboardInterrupt:
            assert (chosen.folder / CHECKPOINT).exists()
    fourth = {("12", 4)}  # where the best epoch on the validation split is an early one
    assert stopped - fourth == {(epoch, k) for epoch in ("3", "7", "12") for k in (1, 2, 3)}
    assert (chosen.folder / "predictions.npz").read_bytes() == (there.folder / "predictions.npz").read_bytes()
    timed = ["train_seconds", "seconds"]
    pd.testing.assert_frame_equal(run.history.drop(columns=timed), plain.history.drop(columns=timed))
    assert run.metrics["splits"] == plain.metrics["splits"]


def test_a_test_split_of_copies_alone_has_no_accuracy_without_them(tmp_path):
    data = dataset()
    data = replace(data, test=data.train[:10])
    run = fit(config(tmp_path, epochs=10), data, quiet)
    read = load_run(config(tmp_path, epochs=10).folder)
    facts = read.metrics["splits"]["test"]
    assert facts["n"] == facts["copies"] == 10 and read.measured.copies.all()
    assert facts["without_copies"] == dict.fromkeys(PROTOCOLS) and facts["protocols"]["last10"] is not None
    assert read.score("last", copies=False) is None and read.history.test_without_copies.isna().all()
    assert results(read).set_index("split").loc[
        "test", "without copies"
    ].isna().all() and "without" not in summary(run)
    assert read.score("last10", "valid", copies=False) == read.score("last10", "valid")  # it has none


@pytest.mark.parametrize("name", ["valid", "test"])
def test_a_split_without_images_is_named_before_any_work(tmp_path, name):
    data = replace(dataset(), **{name: split(9, 1)[:0]})
    for call in (lambda: measured_splits(data), lambda: fit(config(tmp_path), data, quiet)):
        with pytest.raises(ConfigError, match=f"the {name} split of folder has no images"):
            call()
    assert not any(tmp_path.iterdir())


def test_a_data_set_of_training_images_alone_is_named_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="only training images"):
        fit(config(tmp_path), dataset(valid=0, test=0), quiet)
    assert not any(tmp_path.iterdir())


# other computers


def test_a_finished_run_of_a_gpu_is_read_back_on_a_computer_without_one(tmp_path):
    chosen, data = config(tmp_path, device="auto", precision="auto"), dataset()
    fit(chosen, data, quiet)
    path = chosen.folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["config"] |= {"device": "cuda", "precision": "bf16"}
    path.write_text(json.dumps(metrics))
    assert fit(chosen, data, quiet).metrics == metrics
    with pytest.raises(RunError, match="precision = 'bf16' there and 'fp32' here"):
        fit(replace(chosen, precision="fp32"), data, quiet)
    with pytest.raises(RunError, match="device = 'cuda' there and 'cpu' here"):
        fit(replace(chosen, device="cpu"), data, quiet)


def test_a_shared_folder_that_refuses_fsync_is_written_all_the_same(tmp_path, monkeypatch):
    def fsync(number, real=os.fsync):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(said, os.strerror(said))
        real(number)

    said = errno.EINVAL
    monkeypatch.setattr(os, "fsync", fsync)
    records.write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
    said = errno.EIO  # a disk that fails is another matter
    with pytest.raises(OSError, match="Input/output"):
        records.write_atomically(tmp_path / "a", b"content")


def test_a_lock_that_cannot_be_removed_while_it_is_held_is_released(tmp_path, monkeypatch):
    """As on Windows."""
    def unlink(path, missing_ok=False, real=Path.unlink):
        if path.name == ".lock":
            raise PermissionError(errno.EACCES, "used by another process")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in range(2):
        with records.locked(tmp_path / "run"):
            pass
    assert [path.name for path in (tmp_path / "run").iterdir()] in ([".lock"], [])


# what older code left


def make_older(folder, run, split="test"):
    """The records of a run as they were before every split was measured."""
    there = run.predictions[split]
    history = run.history[
        ["epoch", "lr", "train_loss", "monitor_accuracy", f"{split}_accuracy", "train_seconds", "seconds"]
    ]
    history.rename(columns={f"{split}_accuracy": "accuracy"}).to_csv(
        folder / "history.csv", index=False, lineterminator="\n"
    )
    np.savez_compressed(folder / "predictions.npz", probabilities=there.probabilities, labels=there.labels)
    scores = run.metrics["splits"][split]["protocols"]
    metrics = {
        name: value
        for name, value in run.metrics.items()
        if name not in ("overrides", "label_source", "splits", "records")
    }
    metrics |= {
        "measured": split,
        "n": len(there.labels),
        "protocols": scores | {"last10": max(run.history[f"{split}_accuracy"].tail(10))},
    }
    metrics["records"] = {
        name: sha256((folder / name).read_bytes()).hexdigest() for name in ("history.csv", "predictions.npz")
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_a_record_with_one_split_is_read_in_todays_terms(twelve, tmp_path):
    made, chosen = twelve
    chosen = replace(chosen, runs=str(tmp_path))
    chosen.folder.mkdir(parents=True)
    make_older(chosen.folder, made)
    run = load_run(chosen.folder)
    assert (
        run.metrics["label_source"] is None
        and run.metrics["overrides"] == {}
        and list(run.predictions) == ["test"]
    )
    assert run.metrics["splits"]["test"]["n"] == 10 and run.metrics["splits"]["test"]["copies"] is None
    assert np.array_equal(run.probabilities, made.probabilities) and np.array_equal(run.labels, made.labels)
    for protocol in PROTOCOLS:  # the mean of the last ten, though older code took their best
        assert run.score(protocol) == made.score(protocol) and run.score(protocol, copies=False) is None
        assert run.score(protocol, "valid") is None
    assert (
        run.measured.copies is None
        and run.measured.right() is None
        and run.measured.right("last").shape == (10,)
    )
    assert results(run)["without copies"].isna().all() and confusion(run).to_numpy().sum() == 10
    assert len(plot_curve(run).axes) == 2
    again = fit(chosen, with_copies(), quiet)  # finished before: it is read, not trained again
    assert again.metrics == run.metrics


def test_a_record_of_the_validation_split_alone_chose_nothing_on_it(twelve, tmp_path):
    made, _ = twelve
    make_older(tmp_path, made, "valid")
    run = load_run(tmp_path)
    assert run.metrics["measured"] == run.metrics["monitor"] == "valid" and run.score("valid") is None
    assert run.score() == made.score(split="valid")


def test_a_checkpoint_of_older_code_is_named(tmp_path):
    chosen = config(tmp_path)
    state, settings = start(chosen, 3, 32), run_settings(chosen, dataset(), 32, "cpu", "fp32")
    path, parts = chosen.folder / CHECKPOINT, {"model": state.model.state_dict(), "epoch": 1, "looks": {}}
    chosen.folder.mkdir(parents=True)
    for older in (
        {"settings": json.dumps(settings), "state": parts},
        {"settings": json.dumps(settings)} | parts,
    ):
        file = BytesIO()
        torch.save(older, file)
        digest = sha256(file.getvalue()).digest()
        for end in (digest, b""):
            path.write_bytes(file.getvalue() + end)
            with pytest.raises(RunError, match="not a checkpoint.*other code.*overwrite = True"):
                load_checkpoint(chosen.folder, settings, state)


def test_parameters_that_older_code_had_are_as_usual():
    ours = run_settings(config("runs"), dataset(), 32, "cpu", "fp32")
    assert (
        differences(ours | {"alpha": 1.0, "per_sample": False, "labels": "majority", "compile": False}, ours)
        == ""
    )
    assert differences(ours | {"alpha": 0.4}, ours) == "alpha = 0.4 there and 1.0 here"
    assert differences({name: value for name, value in ours.items() if name != "low_resolution"}, ours) == ""


RUNS = sorted(path.parent for path in ROOT.glob("reports/**/runs/**/metrics.json"))


def test_every_committed_run_loads():
    assert len(RUNS) > 50
    for folder in RUNS:
        run, written = load_run(folder), json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        facts = run.metrics["splits"][run.metrics["measured"]]
        assert facts["n"] == len(run.labels) == len(run.probabilities), folder
        assert run.score("last") == pytest.approx(100 * (run.probabilities.argmax(1) == run.labels).mean()), (
            folder
        )
        if "splits" not in written:
            assert (
                run.metrics["label_source"] is None and facts["copies"] is None and facts["n"] == written["n"]
            ), folder
            assert run.score("last") == written["protocols"]["last"] and run.score(copies=False) is None
        else:
            assert written["label_source"] and facts["copies"] == run.measured.copies.sum(), folder
