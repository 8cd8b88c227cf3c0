"""A profile is one preset, whoever asks: a run's notebook, the grid, the command that a record holds."""
import json
import shlex
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from papermill.cli import _resolve_type
from test_train import config, dataset, quiet

import mixcut.config
from mixcut import grid, train
from mixcut.config import (
    BASE,
    PROFILES,
    PROTOCOL,
    Config,
    ConfigError,
    command,
    from_parameters,
    given,
    preset,
    resolve_precision,
)
from mixcut.data import KINDS
from mixcut.paper import CELLS
from mixcut.records import CHECKPOINT, load_run
from mixcut.train import fit

NOTEBOOK = json.loads((Path(__file__).parent.parent / "nbs" / "run.ipynb").read_text(encoding="utf-8"))
CELL = next("".join(cell["source"]) for cell in NOTEBOOK["cells"] if "tags" in cell["metadata"])


def notebook(**given):
    """The configuration of nbs/run.ipynb with parameters from papermill: its own cell, then theirs."""
    names = {}
    exec(CELL, {}, names)
    return from_parameters(names | given)


def parsed(line, **given):
    """The configuration that a command makes, its words read as papermill reads them."""
    words = shlex.split(line)
    assert words[:3] == ["papermill", "nbs/run.ipynb", "out.ipynb"]
    words = words[3:]
    while words:
        if words[0] == "-p":
            given = {words[1]: _resolve_type(words[2])} | given
            words = words[3:]
        else:
            assert words[0] == "-y"
            given = yaml.safe_load(words[1]) | given
            words = words[2:]
    return notebook(**given)


@pytest.mark.parametrize("profile", PROFILES)
def test_run_grid_and_command_make_one_configuration(profile, tmp_path):
    root = str(tmp_path)
    for job in grid.jobs(profile, root, seeds=1):
        place = {"profile": profile, "dataset": job.dataset, "data_root": job.data_root}
        [cell] = [cell.parameters | place for cell in CELLS
                  if (cell.dataset, cell.name) == (KINDS[job.dataset].place, job.cell)]
        assert notebook(**cell) == Config(**cell) == job and job.overrides == {}
        assert notebook(**given(job)) == job
        placed = {"data_root": root} if job.data_root else {}
        assert parsed(command(job), **placed) == job
    alone = notebook(profile=profile)
    assert alone == Config(profile=profile) == parsed(command(alone)) and alone.overrides == {}
    assert {name: getattr(alone, name) for name in preset(profile)} == preset(profile)


def test_the_papers_profile_is_the_papers_protocol():
    paper = notebook(profile="paper")
    assert (paper.dataset, paper.epochs, paper.width, paper.batch_size) == ("fer2013plus", 250, 1.0, 128)
    assert (paper.dropout, paper.lr, paper.momentum, paper.weight_decay) == (0.5, 0.01, 0.9, 5e-4)


GIVEN = [{"epochs": 3}, {"width": "1/16"}, {"lr": 1e-05}, {"mirror": False}, {"precision": "fp32"},
         {"crop": 40}, {"grad_clamp": 0.1}, {"dataset": "drawn-rgb"}, {"schedule": "one-cycle"},
         {"dataset": "drawn", "data_options": {"train": 60, "test": 20}},
         {"epochs": 5, "aug": "mixcut", "beta": "9/64", "gamma": 1, "lam": 0.2, "best_test": True,
          "device": "cpu", "deterministic": True}]


@pytest.mark.parametrize("asked", GIVEN, ids=str)
def test_what_is_given_wins_and_is_in_the_command(asked):
    chosen = Config(profile="mini", **asked)
    own = Config(profile="mini", dataset=asked.get("dataset"))
    protocol = {name for name in asked if name in PROTOCOL}
    assert set(chosen.overrides) == protocol
    assert all(getattr(chosen, name) != getattr(own, name) for name in protocol - {"dataset"})
    said = command(chosen)
    assert parsed(said) == chosen and all(name in said for name in asked)
    assert all(f"-p {name} " not in said for name in BASE if name not in asked)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_value_that_is_the_profiles_is_no_override(profile):
    for own in PROFILES[profile].datasets:
        whole = Config(profile=profile, dataset=own)
        for name, value in preset(profile, own).items():
            same = Config(profile=profile, **{"dataset": own, name: value})
            assert same == whole and same.overrides == {}


def test_overrides_are_in_the_record(tmp_path):
    chosen = config(tmp_path, weight_decay=5e-4, dropout=0.1)  # the first is every profile's
    made = fit(chosen, dataset(), quiet)
    wanted = {"epochs": 2, "width": 0.05, "batch_size": 8, "crop": 32, "precision": "fp32", "dropout": 0.1,
              "schedule": "scaled", "init": "torch", "lr": 0.01}
    assert load_run(chosen.folder).metrics["overrides"] == wanted == chosen.overrides
    assert "NOT the profile's dropout: 0.1" in train.summary(made)
    assert chosen.folder == tmp_path / "quick" / "drawn" / "mixcut" / "seed0"


@pytest.mark.parametrize("wrong, match", [
    ({"profile": "papr"}, "did you mean 'paper'"), ({"profile": "single"}, "it must be 'quick'"),
    ({"profile": None}, "it must be 'quick'"), ({"profile": ["paper"]}, "it must be 'quick'"),
    ({"profile": {}}, "it must be 'quick'"), ({"profile": 2024}, "it must be 'quick'"),
    ({"dataset": ["drawn"]}, "dataset"), ({"dataset": {}}, "dataset"), ({"dataset": ""}, "dataset"),
    ({"runs": 2024}, "with -r instead of -p"), ({"data_root": 7}, "with -r instead of -p"),
    ({"data_options": {"root": "x"}}, "unknown option .* 'root'"), ({"data_options": {1: 2}}, "data_options"),
    ({"data_options": "{'train': 9}"}, "-y '{data_options: {train: 100}}'"),
    ({"data_options": {"tran": 1}}, "of drawn 'tran'"), ({"data_options": {"train": "x"}}, "train must"),
])
def test_what_cannot_be_is_named(wrong, match):
    with pytest.raises(ConfigError, match=match):
        from_parameters(wrong)


def test_a_folder_for_drawn_faces_is_refused():
    with pytest.raises(ConfigError, match="drawn reads no folder, but photos is given: name the data set"):
        Config(data_root="photos")


def test_a_path_may_begin_with_a_tilde(tmp_path):
    chosen = Config(runs="~/runs", dataset="folder", data_root=Path("~/faces"))
    assert chosen.folder.is_relative_to(Path.home()) and chosen.data_root == str(Path.home() / "faces")
    [job] = grid.jobs("digits", "~/digits", "~/runs", cells="mixcut", seeds=1)
    assert job.folder.is_relative_to(Path.home()) and Path(job.data_root).is_absolute()


# the precision


@pytest.fixture
def cuda(monkeypatch):
    """A machine with two CUDA devices, as far as a configuration looks; the second is asked."""
    asked = []

    @contextmanager
    def on(device):
        asked.append(str(device))
        yield
        asked.pop()

    def has(bf16, emulated=True):
        def device(name):
            return torch.device("cpu" if name == "cpu" else "cuda:1")

        def supported(including_emulation=True):
            assert asked == ["cuda:1"]
            return bf16 or including_emulation and emulated

        monkeypatch.setattr(mixcut.config, "resolve_device", device)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        monkeypatch.setattr(torch.cuda, "device", on)
    return has


@pytest.mark.parametrize("amx, precision", [(True, "bf16"), (False, "fp32")])
def test_a_processor_computes_in_bf16_only_with_amx(monkeypatch, amx, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert {resolve_precision(Config(device="cpu")) for _ in range(3)} == {precision}
    for asked in ("fp32", "bf16"):
        assert resolve_precision(Config(device="cpu", precision=asked)) == asked
    assert resolve_precision(Config(profile="mini", device="cpu")) == "bf16"  # it names its own


def test_cuda_computes_in_bf16_where_it_really_has_it(cuda, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    for bf16, emulated, precision in ((True, True, "bf16"), (False, True, "fp32"), (False, False, "fp32")):
        cuda(bf16, emulated)
        assert resolve_precision(Config()) == precision
        assert resolve_precision(Config(precision="fp32")) == "fp32"
    monkeypatch.setattr(mixcut.config, "resolve_device", lambda name: torch.device("mps"))
    assert resolve_precision(Config()) == "fp32"


def test_nothing_is_timed_to_choose_it(monkeypatch):
    def stopwatch():
        raise AssertionError("a clock was read")

    for name in ("time", "perf_counter", "monotonic", "process_time"):
        monkeypatch.setattr(train.time, name, stopwatch)
    chosen = {resolve_precision(Config(device="cpu")) for _ in range(2)}
    monkeypatch.undo()
    assert len(chosen) == 1


def test_the_same_command_goes_on_however_slow_the_machine_has_become(tmp_path, monkeypatch):
    data, chosen = dataset(), config(tmp_path, precision="auto", epochs=3)
    ticks = iter(range(10**9))
    step = 0.001

    def stop(text, last=False):
        if "epoch 2 of" in text:
            raise MemoryError

    monkeypatch.setattr(train.time, "perf_counter", lambda: step * next(ticks))
    with pytest.raises(MemoryError):
        fit(chosen, data, stop)
    assert (chosen.folder / CHECKPOINT).exists()
    step = 1000.0
    run = fit(chosen, data, quiet)
    assert len(run.history) == 3 and run.metrics["config"]["precision"] == resolve_precision(chosen)
    step = 0.001
    assert fit(chosen, data, quiet).metrics == run.metrics  # finished: read
