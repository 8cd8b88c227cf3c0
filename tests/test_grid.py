"""The grid on its engine: the list of runs, a real Snakemake, a cell that fails, runs of other parameters."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mixcut import grid
from mixcut.config import Config, ConfigError, given
from mixcut.data import load
from mixcut.paper import CELLS
from mixcut.records import RunError

ROOT = Path(__file__).parent.parent
TINY = {"epochs": 2, "width": 0.05, "device": "cpu", "data_options": {"train": 120, "test": 40}}


def environment(folder):
    """Of a process that starts a grid: its own cache and home, one thread."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), "PATH": path}


@pytest.fixture
def checkout(tmp_path):
    """What Snakemake needs of the repository, in a folder of its own, so that its state is this test's."""
    home = tmp_path / "a checkout"  # with a space
    for name in ("nbs", "profiles"):
        shutil.copytree(ROOT / name, home / name)
    shutil.copy(ROOT / "Snakefile", home)
    return home


def snakemake(home, *words, parameters=TINY, cores=2):
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *words,
               "--config", "gflops=10", "datasets=drawn", "cells=baseline,cutout,mixcut", "seeds=1",
               f"parameters={json.dumps(parameters)}"]
    return subprocess.Popen(command, cwd=home, env=environment(home.parent), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def records(home):
    return {path.parent.parent.name: path for path in home.glob("runs/demo/drawn/*/seed0/metrics.json")}


def test_every_cell_of_the_paper_is_in_it_and_nothing_else():
    jobs = grid.jobs("paper", "faces", device="cuda")  # which this machine need not have
    assert len(jobs) == len({job.folder for job in jobs}) == 85
    for cell in CELLS:
        mine = [job for job in jobs if (job.dataset, job.cell) == (cell.dataset, cell.name)]
        assert [job.seed for job in mine] == [0, 1, 2, 3, 4]


def test_a_job_is_its_parameters():
    for job in grid.jobs("paper", "faces")[:20] + grid.jobs("demo", epochs=3):
        assert Config(**json.loads(json.dumps(given(job)))) == job


def test_the_data_root_may_hold_a_folder_for_each_data_set(tmp_path):
    (tmp_path / "rafdb").mkdir()
    roots = {job.dataset: job.data_root for job in grid.jobs("paper", str(tmp_path))}
    assert roots == {"fer2013plus": str(tmp_path), "rafdb": str(tmp_path / "rafdb")}


@pytest.mark.parametrize("name", ["drawn", "drawn-rgb"])
def test_the_forecast_knows_how_many_faces_there_are(name):
    few = {"train": 12, "test": 9}
    drawn = load(name, **few | ({"valid": 0} if name == "drawn" else {}))
    assert set(drawn.splits) == {"train", "test"}
    [job] = grid.jobs("demo", datasets=name, cells="mixcut", seeds=1, data_options=few)
    assert grid.images_of(job) == {"train": 12, "test": 9} | ({"valid": 300} if name == "drawn" else {})


def test_a_slower_machine_reserves_more_and_a_smaller_network_less():
    [full] = grid.jobs("paper", "faces", datasets="fer2013plus", cells="mixcut", seeds=1)
    [small] = grid.jobs("paper", "faces", datasets="fer2013plus", cells="mixcut", seeds=1, width=0.25)
    slow, fast = (grid.resources(full, {"fer2013plus": rate}) for rate in (1e12, 1e13))
    assert slow["runtime"] > 9 * (fast["runtime"] - 10) and slow["mem_mb"] == fast["mem_mb"]
    assert grid.resources(small, {"fer2013plus": 1e12})["mem_mb"] < slow["mem_mb"]


@pytest.mark.parametrize("wrong, match", [
    ({"overwrite": True}, "begin a run again at each retry"),
    ({"profile": "papr"}, "did you mean 'paper'"), ({"profile": 2024}, "choose from quick"),
    ({"profile": "paper"}, "data_root"), ({"cells": "mixcat"}, "did you mean 'mixcut'"),
    ({"datasets": "rafdb"}, "choose from drawn"), ({"seeds": 0}, "no run is left"),
    ({"seeds": "all"}, "a valid integer"), ({"epochs": 0}, "epochs"),
    ({"aug": "mixup"}, "aug is each run's own"), ({"dataset": "drawn"}, "dataset is each run's own"),
    ({"data_options": {"root": "x"}}, "unknown option .* 'root'"), ({"cells": 5}, "cells = 5"),
    ({"data_options": {"train": "many"}}, "train must be"), ({"data_options": {"size": 48}}, "drawn 'size'"),
    ({"datasets": {"drawn": 1}}, "datasets ="), ({"profile": ["demo"]}, "did you mean 'demo'"),
    ({"profile": "paper", "data_root": 2024}, "data_root = 2024.*./7"),
])
def test_impossible_grids(wrong, match):
    with pytest.raises(ConfigError, match=match):
        grid.jobs(**wrong)


def test_a_cell_that_fails_stops_no_other_and_leaves_its_notebook(checkout):
    bad = checkout / "runs/demo/drawn/cutout/seed0"
    bad.mkdir(parents=True)
    (bad / "checkpoint.pt").write_bytes(b"no checkpoint")
    process = snakemake(checkout)
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0 and set(records(checkout)) == {"baseline", "mixcut"}
    assert all("is not a checkpoint" in (bad / name).read_text() for name in ("run.log", "run.ipynb"))
    assert "checkpoint.pt" in output, "the failed log is shown"
    whole = grid.jobs(runs=str(checkout / "runs"), datasets="drawn", cells="baseline,cutout,mixcut", seeds=1)
    shown = grid.progress(whole).set_index("cell")
    assert shown.done.sum() == 2 and shown.failed["cutout"] == 1
    partial = snakemake(checkout, "so_far")
    assert partial.wait(timeout=120) == 0
    assert "2 of 34 runs" in (checkout / "reports/demo/report.html").read_text()


@pytest.mark.parametrize("asked", [{}, {"device": "cuda:1"}])
def test_a_finished_run_is_its_job_whatever_computed_it(tmp_path, asked):
    """A record holds the kind of device, without a number, and what `auto` and None became."""
    [job] = grid.jobs("demo", runs=str(tmp_path), datasets="drawn", cells="mixcut", seeds=1, **asked)
    theirs = vars(job) | {"device": "cuda", "crop": 44, "precision": "bf16"}
    job.folder.mkdir(parents=True)
    (job.folder / "metrics.json").write_text(json.dumps({"config": theirs}))
    grid.check([job])
    with pytest.raises(RunError, match="crop = 44 there and 40 here"):
        grid.check([replace(job, crop=40)])


def test_runs_of_other_parameters_are_refused(checkout):
    done = checkout / "runs/demo/drawn/mixcut/seed0"
    done.mkdir(parents=True)
    (done / "metrics.json").write_text(json.dumps({"config": {"epochs": 99}}))
    process = snakemake(checkout)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "epochs = 99 there and 2 here" in output
    assert set(records(checkout)) == {"mixcut"}


@pytest.mark.parametrize("words, says", [
    (["runs=./r/", "reports=./x/"], "r/demo/drawn/mixcut/seed0/finished"),
    (["profil=demo"], "did you mean 'profile'"), (["reports=2024"], "reports = 2024"),
])
def test_what_snakemake_is_given(tmp_path, words, says):
    """From another folder too."""
    given = ["gflops=10", "datasets=drawn", "cells=mixcut", "seeds=1", *words]
    command = [sys.executable, "-m", "snakemake", "-n", "-s", ROOT / "Snakefile", "--config", *given]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert says in done.stdout + done.stderr and ("did you" in says or "=" in says) == bool(done.returncode)


@pytest.mark.filterwarnings("ignore::mixcut.data.DataWarning")  # its images are alike
@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "test"), ("",)])
def test_a_folders_images_are_counted_before_they_are_read(tmp_path, splits):
    for split in splits:
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(10 if split in ("", "train") else 4):
                Image.new("L", (48, 48)).save(tmp_path / split / name / f"{k}.png")
    sizes = grid.images_of(grid.jobs("digits", str(tmp_path))[0])
    read = {name: len(split) for name, split in load("folder", str(tmp_path)).splits.items()}
    assert {name: n for name, n in sizes.items() if n} == read
