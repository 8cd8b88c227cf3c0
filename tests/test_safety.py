"""No code from data, no network, nothing outside the folder of runs, and weights that are what they say."""
import io
import json
import os
import pickle
import subprocess
import sys
from hashlib import sha256

import pytest
import torch
from test_run import NOTEBOOK, done, papermill
from test_train import config, dataset, quiet

from mixcut import grid
from mixcut.config import ConfigError, from_parameters
from mixcut.predict import PredictError, load_network
from mixcut.records import CHECKPOINT, FORMAT, RunError
from mixcut.train import fit

CUT = """
import socket, sys
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
                 "urllib.Request", "http.client.connect"):
        where = args[1] if event.startswith("socket.connect") or event == "socket.sendto" else args[0]
        host = where[0] if isinstance(where, tuple) else where
        here = ("127.0.0.1", "::1", "localhost", "")
        named = event.startswith(("urllib", "http", "socket.get"))
        if isinstance(where, tuple) and host not in here or named and str(host) not in (*here, "None"):
            open({log!r}, "a").write(f"{{event}} {{where}}\\n")
            raise OSError("the network is cut")
sys.addaudithook(hook)
"""


@pytest.fixture
def cut(tmp_path):
    """An environment in which each Python refuses, and writes down, whatever is not this machine."""
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "sitecustomize.py").write_text(CUT.format(log=str(tmp_path / "tried")))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "cut"), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def test_the_cut_cuts(tmp_path, cut):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    process = subprocess.run([sys.executable, "-c", code], env=cut, capture_output=True, text=True)
    assert "the network is cut" in process.stderr and "192.0.2.1" in (tmp_path / "tried").read_text()


def test_no_notebook_uses_the_network(tmp_path, cut, record):
    sizes = '{"data_options": {"train": 80, "valid": 20, "test": 20}}'
    tiny = [*"-p epochs 1 -p width 0.05 -p precision fp32 -y".split(), sizes]
    quick = "-p runs runs -p profile quick".split()
    jobs = [
        ("run.ipynb", tiny),
        ("covered.ipynb", quick),
        ("report.ipynb", quick),
        ("predict.ipynb", []),
    ]
    for name, given in jobs:
        process = subprocess.run(
            [
                sys.executable,
                "-m",
                "papermill",
                str(NOTEBOOK.parent / name),
                "out.ipynb",
                "--no-progress-bar",
                *given,
            ],
            cwd=tmp_path,
            env=cut,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr[-2000:]
    assert not (tmp_path / "tried").exists(), (tmp_path / "tried").read_text()
    record("notebooks with the network cut", len(jobs), "no connection tried")


EVIL = [
    "'); import os; os.system('touch owned') #",
    '"); open("owned", "w") #',
    "{{open('owned','w')}}",
    "$(touch owned)",
    "`touch owned`",
    "mixcut\nopen('owned', 'w')",
    "../../owned",
    "/owned",
    "a\\",
    "\x00",
    "%(owned)s",
]


@pytest.mark.parametrize("name", ["aug", "profile", "dataset", "device", "beta"])
def test_parameters_are_data(tmp_path, name, record):
    for value in EVIL:
        with pytest.raises(ConfigError):
            from_parameters({name: value})
    record(f"hostile values of {name}", len(EVIL), "ConfigError")


def test_a_parameter_that_would_be_code_is_a_text(tmp_path, record):
    code, output = done(papermill(tmp_path, aug=EVIL[0]))
    assert code != 0 and "ConfigError" in output and not list(tmp_path.rglob("owned"))
    record("code in a papermill parameter", 1, "a text that is no aug")


def test_a_grid_takes_only_parameters():
    for given in ({"x = 1; import os": 1}, {"runs_": "x"}):
        with pytest.raises(ConfigError, match="not a parameter"):
            grid.jobs("demo", **given)


class Trap:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path, monkeypatch, record):
    monkeypatch.chdir(tmp_path)
    chosen = config(tmp_path / "runs")
    chosen.folder.mkdir(parents=True)
    for make in (
        lambda file: torch.save({"settings": "{}", "trap": Trap()}, file),
        lambda file: pickle.dump(Trap(), file),
    ):
        file = io.BytesIO()
        make(file)
        (chosen.folder / CHECKPOINT).write_bytes(file.getvalue() + sha256(FORMAT + file.getvalue()).digest())
        with pytest.raises(RunError, match="not a checkpoint that can be read"):
            fit(chosen, dataset(), quiet)
    assert not (tmp_path / "owned").exists()
    record("a checkpoint that holds code", 2, "refused, not run")


def test_weights_carry_what_they_need_and_a_flipped_bit_is_named(tmp_path, record):
    data = dataset()
    run = fit(config(tmp_path), data, quiet)
    path = config(tmp_path).folder / "model.safetensors"
    network = load_network(path)
    assert network.config["data"] == data.fingerprint and network.classes == data.classes
    assert torch.allclose(network(data.test.images), torch.from_numpy(run.probabilities), atol=1e-5)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(PredictError, match="damaged"):
        load_network(path)
    record("weights with a flipped bit", 1, "PredictError")


def test_hostile_class_names_reach_no_page_and_no_shell(tmp_path, record):
    """A folder's names go through training, the record, the report: as texts."""
    from PIL import Image

    names = ["<script>alert(1)</script>".replace("/", "⁄"), "a\"b'c", "=cmd()", "$(touch owned)"]
    for name in names:
        for k in range(5):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (48, 48), 40 * k).save(tmp_path / "data" / name / f"{k}.png")
    code, output = done(
        papermill(tmp_path, dataset="folder", data_root=str(tmp_path / "data"), epochs=1, precision="fp32")
    )
    assert code == 0, output
    metrics = json.loads((tmp_path / "runs/quick/folder/mixcut/seed0/metrics.json").read_text())
    assert sorted(metrics["classes"]) == sorted(names)
    notebook = str(NOTEBOOK.parent / "report.ipynb")
    given = "report.ipynb --no-progress-bar -p runs runs -p profile quick -p out out".split()
    command = [sys.executable, "-m", "papermill", notebook, *given]
    code = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert code.returncode == 0, code.stderr[-2000:]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in page and not list(tmp_path.rglob("owned"))
    record("hostile class names, from folder to report", len(names), "texts")
