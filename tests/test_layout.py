"""The repository itself: the environment, the exported package, the committed notebooks, the README."""
import configparser
import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from mixcut.config import Config
from mixcut.pages import readme
from mixcut.paper import LEDGER

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
THIN = ("run.ipynb", "report.ipynb", "predict.ipynb")  # these only call
EXTRAS = ("", "dev_", "grid_", "bench_", "predict_", "onnx_", "recipes_", "docs_")
MACHINE = r"/(home|root|tmp|work|Users|usr)/|0x[0-9a-f]{8}|[A-Z]:\\\\|it/s\]"  # paths, addresses, bars


def settings():
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def cells(notebook, kind="code"):
    every = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == kind]


def tags(cell):
    return cell["metadata"].get("tags", [])


def parameters_cell(name):
    [cell] = [cell for cell in cells(ROOT / "nbs" / name) if "parameters" in tags(cell)]
    values = {}
    exec("".join(cell["source"]), values)
    return {key: value for key, value in values.items() if not key.startswith("_")}


def in_copy(tmp_path, *command):
    """Run a command of nbdev in a copy of the tree; the names of the files that it changes."""
    copy, left_out = tmp_path / "copy", (".*", "_docs", "runs", "__pycache__", "reports")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left_out))
    files = [*copy.glob("nbs/*.ipynb"), *copy.glob("mixcut/*.py")]
    before = {path: path.read_bytes() for path in files}
    program = Path(sys.executable).parent / command[0]
    subprocess.run([program, *command[1:]], cwd=copy, check=True, capture_output=True)
    return [path.name for path in files if path.read_bytes() != before[path]]


def test_environment_is_settings():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()]
    listed = [line[2:] for line in lines if line.startswith("- ")]
    conda, pip = listed[1:listed.index("pip:")], listed[listed.index("pip:") + 1:]
    groups = [f"{name}requirements" for name in EXTRAS]
    wanted = [line for name in groups for line in settings()[name].split()]
    assert conda == [f"python>={settings()['min_python']}", "pip"]
    assert pip == [*dict.fromkeys(wanted), "-e ."]


def test_run_takes_every_parameter_with_its_default():
    assert parameters_cell("run.ipynb") == {f.name: f.default for f in fields(Config)}


def test_the_ledgers_parameters_are_a_runs():
    assert {ruling.parameter for ruling in LEDGER if ruling.parameter} <= set(parameters_cell("run.ipynb"))


def test_package_is_what_the_notebooks_export(tmp_path):
    assert in_copy(tmp_path, "nbdev_export") == []


def test_notebooks_are_clean(tmp_path):
    assert in_copy(tmp_path, "nbdev_clean") == []


def test_parameters_tag_survives_cleaning(tmp_path):
    # without allowed_cell_metadata_keys, papermill would inject above the defaults: all runs alike
    in_copy(tmp_path, "nbdev_clean")
    for name in (*THIN, "covered.ipynb", "benchmark.ipynb"):
        found = [tags(cell) for cell in cells(tmp_path / "copy" / "nbs" / name)]
        assert found.count(["parameters"]) == 1, name


def test_ruff():
    program = Path(sys.executable).parent / "ruff"
    done = subprocess.run([program, "check", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_those_a_reader_wants(notebook):
    assert notebook.stat().st_size < 1_000_000
    outputs = [output for cell in cells(notebook) for output in cell["outputs"]]
    assert outputs or notebook.name == "index.ipynb"
    for output in outputs:
        assert output["output_type"] != "error" and output.get("name") != "stderr", output
        data = {kind: v for kind, v in output.get("data", {}).items() if not kind.startswith("image/")}
        text = json.dumps([data, output.get("text", "")])
        assert not re.search(MACHINE, text), text[:500]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_code_cells_fit_on_a_screen(notebook):
    for cell in cells(notebook):
        if "parameters" not in tags(cell):  # those are a list, a line each
            assert len(cell["source"]) <= 32, "".join(cell["source"])
        if notebook.name in THIN:
            assert not re.search(r"^\s*(def|class) ", "".join(cell["source"]), re.M), "logic lives in rooms"


def test_readme_is_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(ROOT)


def test_readme_and_report_agree():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for value in pd.read_csv(ROOT / "reports" / "mini" / "tables" / "table-2.csv").ours.dropna():
        assert f" {value:.2f}" in text, "execute nbs/index.ipynb, then mixcut_readme"


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", text)
    for link in (a or b for a, b in links):
        assert re.match(r"https?://", link) or (ROOT / link).exists(), link


def test_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```sh\n(python3 -m venv .*?)\n```", text, re.M | re.S)
    assert first.endswith("papermill nbs/run.ipynb out.ipynb -p aug mixcut")
    assert "nbdev_test" in second and second.endswith("pytest") and "\n" not in second  # CI greps for it


def test_nothing_that_is_ignored_is_kept():
    command = ["git", "-c", "safe.directory=*", "ls-files", "-ci", "--exclude-standard"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert kept.returncode == 0 and kept.stdout == ""
