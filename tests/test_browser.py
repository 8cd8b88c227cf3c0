"""JupyterLab in a real browser: every notebook opens in the light and in the dark theme, and the run notebook runs from top to bottom.

Needs Debian's chromium (apt-get install chromium). Screenshots go to $MIXCUT_SCREENSHOTS, or are thrown away.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "nbs").glob("*.ipynb"))
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync").split()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "nbs", home / "nbs", ignore=shutil.ignore_patterns("runs", ".ipynb_checkpoints"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    places = {"HOME": home, "JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_DATA_DIR": home / "data", "JUPYTER_RUNTIME_DIR": home / "runtime"}
    environment = os.environ | {name: str(path) for name, path in places.items()} | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(home / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
                                   "--IdentityProvider.token=", f"--ServerApp.root_dir={home / 'nbs'}"], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", home / "nbs"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def open_notebook(browser, url, name, dark=False):
    page = browser.new_page(viewport={"width": 1300, "height": 2000})
    page.set_default_timeout(120_000)
    page.goto(f"{url}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    if dark:
        page.get_by_text("Settings", exact=True).first.click()
        page.get_by_text("Theme", exact=True).first.hover()
        page.get_by_text("JupyterLab Dark", exact=True).first.click()
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    return page


def keep(page, name):
    if folder := os.environ.get("MIXCUT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens(lab, browser, name):
    page = open_notebook(browser, lab[0], name)
    assert page.locator(".jp-Notebook h1").first.inner_text().strip("¶ ")
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    keep(page, f"{name[:-6]}-light")
    page.close()


def test_pictures_can_be_seen_in_the_dark(lab, browser):
    page = open_notebook(browser, lab[0], "05_augment.ipynb", dark=True)
    picture = page.locator(".jp-RenderedImage img").first
    picture.scroll_into_view_if_needed()
    # a figure brings its white ground along: its corner is light on the dark page
    corner = picture.evaluate("""image => { const c = document.createElement('canvas'); c.width = c.height = 4; const g = c.getContext('2d');
                                 g.drawImage(image, 0, 0, 4, 4, 0, 0, 4, 4); return Array.from(g.getImageData(1, 1, 1, 1).data) }""")
    assert min(corner) > 240, corner
    keep(page, "05_augment-dark")
    page.close()


def test_run_all(lab, browser):
    url, folder = lab
    path = folder / "run.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    [cell] = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    cell["source"] = [{"epochs": "epochs = 2\n", "data_options": "data_options = {'train': 300, 'valid': 50, 'test': 50}\n"}.get(line.split(" = ")[0], line) for line in cell["source"]]
    for each in notebook["cells"]:
        if each["cell_type"] == "code":
            each.update(outputs=[], execution_count=None)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    page = open_notebook(browser, url, "run.ipynb")
    page.wait_for_selector("[data-status='idle']", state="attached")
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    record = folder / "runs" / "quick" / "drawn" / "mixcut" / "seed0" / "metrics.json"
    for _ in range(480):
        if record.exists():
            break
        time.sleep(0.5)
    page.wait_for_timeout(3000)
    page.wait_for_selector("[data-status='idle']", state="attached")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    keep(page, "run-all")
    outputs = [output for each in json.loads(path.read_text(encoding="utf-8"))["cells"] for output in each.get("outputs", [])]
    assert record.exists() and not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3  # a batch, the curve, the confusion matrix
    page.close()
