"""JupyterLab in a real browser: every notebook opens, pictures show in the dark, and the run notebook runs.

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
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
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
    places = {"HOME": home, "JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_DATA_DIR": home / "data",
              "JUPYTER_RUNTIME_DIR": home / "runtime", "PYTHONPATH": ROOT, "OMP_NUM_THREADS": 1}
    environment = os.environ | {name: str(value) for name, value in places.items()}
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1",
               f"--port={port}", "--port-retries=0", "--IdentityProvider.token=", "--expose-app-in-browser",
               f"--ServerApp.root_dir={home / 'nbs'}"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
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


@pytest.fixture(scope="module")
def page(lab, browser):
    """JupyterLab, loaded once; `jupyterapp` executes its commands."""
    page = browser.new_page(viewport={"width": 1300, "height": 2000})
    page.set_default_timeout(120_000)
    page.goto(f"{lab[0]}/lab?reset")
    page.wait_for_function("window.jupyterapp && jupyterapp.commands.hasCommand('docmanager:open')")
    page.evaluate("jupyterapp.restored.then(() => null)")
    return page


def execute(page, command, **arguments):
    page.evaluate("async ([name, given]) => { await jupyterapp.commands.execute(name, given) }",
                  [command, arguments])


def open_notebook(page, name, **arguments):
    """The notebook's panel; `kernel=None` opens it without one."""
    page.evaluate("[...jupyterapp.shell.widgets('main')].forEach(widget => widget.dispose())")  # never asks
    execute(page, "docmanager:open", path=name, **arguments)
    page.wait_for_selector(f"{PANEL} .jp-Cell")


def keep(page, name):
    if folder := os.environ.get("MIXCUT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_every_notebook_opens(page):
    for name in NOTEBOOKS:
        open_notebook(page, name, kernel=None)
        assert page.locator(f"{PANEL} h1").first.inner_text().strip("¶ "), name
        assert page.locator(f"{PANEL} [data-mime-type='application/vnd.jupyter.stderr']").count() == 0, name
        keep(page, f"{name[:-6]}-light")


def test_pictures_can_be_seen_in_the_dark(page):
    execute(page, "apputils:change-theme", theme="JupyterLab Dark")
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    open_notebook(page, "05_augment.ipynb", kernel=None)
    picture = page.locator(f"{PANEL} .jp-RenderedImage img").first
    picture.scroll_into_view_if_needed()
    # a figure brings its white ground along: its corner is light on the dark page
    corner = picture.evaluate("""image => {
        const canvas = document.createElement('canvas'); canvas.width = canvas.height = 4;
        const context = canvas.getContext('2d'); context.drawImage(image, 0, 0, 4, 4, 0, 0, 4, 4);
        return Array.from(context.getImageData(1, 1, 1, 1).data) }""")
    assert min(corner) > 240, corner
    keep(page, "05_augment-dark")


def test_run_all(lab, page):
    folder = lab[1]
    path = folder / "run.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    small = {"epochs": "epochs = 2\n",
             "data_options": "data_options = {'train': 300, 'valid': 50, 'test': 50}\n"}
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [small.get(line.split(" = ")[0], line) for line in cell["source"]]
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    open_notebook(page, "run.ipynb", kernel={"name": "python3"})
    session = "jupyterapp.shell.currentWidget.sessionContext"
    page.evaluate(f"{session}.ready.then(() => null)")
    execute(page, "notebook:run-all-cells")
    model = "jupyterapp.shell.currentWidget.content.model.toJSON().cells"
    done = f"{model}.every(cell => cell.cell_type !== 'code' || cell.execution_count)"
    page.wait_for_function(done, timeout=300_000, polling=1000)
    keep(page, "run-all")
    outputs = [output for cell in page.evaluate(model) for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert (folder / "runs" / "quick" / "drawn" / "mixcut" / "seed0" / "metrics.json").exists()
    pictures = ["image/png" in output.get("data", {}) for output in outputs]
    assert sum(pictures) == 3  # a batch, the curve, the confusion matrix
