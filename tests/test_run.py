"""nbs/run.ipynb through papermill: parameters arrive, wrong ones are refused, a killed run goes on."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from mixcut.data import RECIPES

NOTEBOOK = Path(__file__).parent.parent / "nbs" / "run.ipynb"
TINY = {"epochs": 3, "width": 0.05, "device": "cpu"}
OPTIONS = {"data_options": {"train": 160, "valid": 40, "test": 41}}


def papermill(folder, tiny=TINY, notebook="run.ipynb", **parameters):
    """Start papermill in a folder of its own; the run folder is below it."""
    notebook = str(NOTEBOOK.with_name(notebook))
    words = [sys.executable, "-m", "papermill", notebook, "out.ipynb", "--no-progress-bar"]
    for name, value in {**tiny, **parameters}.items():
        words += ["-p", name, str(value)]
    if tiny and "dataset" not in parameters:
        words += ["-y", json.dumps(OPTIONS)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def done(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_parameters_arrive_and_the_folder_is_complete(tmp_path):
    code, output = done(papermill(tmp_path, aug="mixcut", beta="1/4", seed=2))
    assert code == 0, output
    folder = tmp_path / "runs" / "quick" / "drawn" / "mixcut-beta-1-4" / "seed2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "metrics.json",
        "model.safetensors",
        "predictions.npz",
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["config"]["beta"] == 0.25 and metrics["config"]["epochs"] == 3 and metrics["seed"] == 2
    subject = "-p profile quick -p dataset drawn -p aug mixcut -p seed 2 -p beta 0.25 "
    assert metrics["command"].startswith("papermill nbs/run.ipynb out.ipynb " + subject), metrics["command"]
    assert metrics["overrides"] == OPTIONS | {"epochs": 3, "width": 0.05}
    assert metrics["label_source"] == "mixcut.faces"
    with np.load(folder / "predictions.npz") as arrays:
        counts = {split: len(arrays[f"{split}_labels"]) for split in ("valid", "test")}
    assert {split: facts["n"] for split, facts in metrics["splits"].items()} == counts
    assert [facts["copies"] for facts in metrics["splits"].values()] == [0, 0]
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    streams = [
        output
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert not streams, streams
    assert "NOT the profile's epochs: 3; NOT" in (tmp_path / "out.ipynb").read_text()
    assert str(tmp_path) not in json.dumps(metrics)


@pytest.mark.parametrize(
    "parameters, match",
    [
        ({"agu": "mixcut"}, "did you mean 'aug'"),
        ({"gamma": 1.5}, "gamma = 1.5: it must be less than or equal to 1"),
    ],
)
def test_wrong_parameters_are_refused_before_any_work(tmp_path, parameters, match):
    code, output = done(papermill(tmp_path, **parameters))
    assert code != 0 and "ConfigError" in output and match in output
    assert not (tmp_path / "runs").exists()


def test_a_missing_data_root_says_how_to_get_the_data(tmp_path):
    code, output = done(papermill(tmp_path, dataset="rafdb", data_root="nowhere"))
    assert code != 0 and "DataError" in output and "nowhere" in output


def test_a_profiles_name_is_the_whole_protocol(tmp_path):
    """Stopped by the missing data, after it has shown what it would do."""
    code, output = done(papermill(tmp_path, tiny={}, profile="paper"))
    assert code != 0 and "DataError" in output and "fer2013plus needs its unpacked folder" in output
    assert RECIPES["fer2013plus"].splitlines()[0] in output and not (tmp_path / "runs").exists()
    page = (tmp_path / "out.ipynb").read_text().replace("\\n", "").replace('\\"', '"')
    shown = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    rows = {tuple(shown[k:k + 3]) for k in range(0, len(shown) - 2, 3)}
    assert {("epochs", "250", "250"), ("width", "1.0", "1.0")} <= rows
    assert ("dataset", "fer2013plus", "fer2013plus") in rows
    # and nothing that is NOT the profile's
    assert "seed 0, profile paper<" in page


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    plain.mkdir(), killed.mkdir()
    assert done(papermill(plain, epochs=8))[0] == 0
    folder = Path("runs/quick/drawn/mixcut/seed0")
    process = papermill(killed, epochs=8)
    while process.poll() is None and not (killed / folder / "checkpoint.pt").exists():
        time.sleep(0.02)
    for each in (*psutil.Process(process.pid).children(recursive=True), process):  # the kernel first
        each.kill()
    process.communicate()
    assert not (killed / folder / "metrics.json").exists(), "the run was over before it could be killed"
    code, output = done(papermill(killed, epochs=8))
    assert code == 0, output
    first, second = (load_file(base / folder / "model.safetensors") for base in (plain, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    first, second = ((base / folder / "predictions.npz").read_bytes() for base in (plain, killed))
    assert first == second
