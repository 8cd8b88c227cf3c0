"""Networks in tests are tiny: one thread does them faster than two that wait for each other."""
from pathlib import Path

import pandas as pd
import pytest
import torch

torch.set_num_threads(1)
COUNTED = []


def pytest_addoption(parser):
    group = parser.getgroup("reliability", "how much is tried; few by default, so that the tests are quick")
    group.addoption("--kills", type=int, default=9, help="how often runs are killed")
    group.addoption("--grid-kills", type=int, default=1, help="how often a grid is killed")
    group.addoption("--examples", type=int, default=40, help="inputs that each property is tried on")
    group.addoption("--record", type=Path, help="the folder where what was tried is written, as reliability.csv and .md")


@pytest.fixture
def record(request):
    """Count what a test tried: `record(what, how many, what came of it)`."""
    def note(what, tried, result):
        COUNTED.append({"test": request.node.nodeid.split("::")[0].removeprefix("tests/"), "what": what, "tried": tried, "result": result})
    return note


def pytest_terminal_summary(terminalreporter, config):
    if not COUNTED:
        return
    table = pd.DataFrame(COUNTED)
    terminalreporter.section("what was tried")
    terminalreporter.write_line(table.to_markdown(index=False, intfmt=","))
    if folder := config.getoption("record"):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "reliability.csv", index=False, lineterminator="\n")
        (folder / "reliability.md").write_text(table.to_markdown(index=False, intfmt=",") + "\n")
