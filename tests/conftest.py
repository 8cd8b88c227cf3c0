"""Networks in tests are tiny: one thread does them faster than two that wait for each other."""
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for kernels and engines that tests start


def pytest_addoption(parser):
    group = parser.getgroup("reliability", "how much is tried; few by default, so that the tests are quick")
    group.addoption("--kills", type=int, default=6, help="how often runs are killed")
    group.addoption("--grid-kills", type=int, default=1, help="how often a grid is killed")
    group.addoption("--examples", type=int, default=40, help="inputs that each property is tried on")
    group.addoption("--golden", action="store_true", help="write tests/golden.json anew")
    group.addoption("--record", type=Path, help="the folder for tried.csv and tried.md: what was tried")


@pytest.fixture
def record(request):
    """Count what a test tried: `record(what, how many, what came of it)`."""
    def note(what, tried, result):
        test = request.node.nodeid.split("::")[0].removeprefix("tests/")
        row = {"test": test, "what": what, "tried": tried, "result": result}
        request.node.user_properties.append(("tried", row))
    return note


def pytest_terminal_summary(terminalreporter, config):
    rows = []
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        tried = [row for name, row in report.user_properties if name == "tried" and report.when == "call"]
        rows += [row | {"result": "FAILED"} if report.failed else row for row in tried]
    if not rows:
        return
    table = pd.DataFrame(rows).sort_values("test", kind="stable")
    terminalreporter.section("what was tried")
    terminalreporter.write_line(table.to_markdown(index=False, intfmt=","))
    if folder := config.getoption("record"):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "tried.csv", index=False, lineterminator="\n")
        (folder / "tried.md").write_text(table.to_markdown(index=False, intfmt=",") + "\n")
