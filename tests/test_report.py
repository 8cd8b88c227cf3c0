"""mixcut.report on made-up records: folders that are empty, torn, doubled, mixed or foreign; what is written, and that it stays the same."""
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from scipy import stats

import mixcut
from mixcut import report as R
from mixcut.beyond import further
from mixcut.evaluate import Run, protocols
from mixcut.paper import CELLS, METHODS, TABLES
from mixcut.report import ReportError, Settings

ROOT = Path(mixcut.__file__).parent.parent
CLASSES = ["neutral", "happiness", "surprise", "sadness"]
EACH = [f"{{}}-{dataset}" for dataset in ("drawn", "drawn-rgb")]  # what a report shows of each data set
ITEMS = {"table": [*(f"table-{k}" for k in range(1, 7)), "conclusions", "claims", "provenance", "runs", "skipped", *(name.format(kind) for name in EACH for kind in ("pairs", "protocols"))],
         "figure": ["figure-1", "figure-2", "figure-3", *(name.format(kind) for name in EACH for kind in ("accuracy", "choice", "curves", "confusion"))]}
PROMISED = {"report.html", *(f"tables/{name}.{kind}" for name in ITEMS["table"] for kind in ("csv", "md", "tex")),
            *(f"figures/{name}.{kind}" for name in ITEMS["figure"] for kind in ("svg", "png"))}
BEYOND = {*(f"tables/{name}-drawn.{kind}" for name in ("covered", "calibration", "recall") for kind in ("csv", "md", "tex")),
          *(f"figures/{name}-figure-drawn.{kind}" for name in ("calibration", "recall") for kind in ("svg", "png"))}  # of 14_beyond, in the notebook
PROGRESS = {f"tables/progress.{kind}" for kind in ("csv", "md", "tex")}  # where the profile is one of the grid's


def made_up(cell="mixcut", seed=0, dataset="drawn", commit="a" * 40, profile="demo", finished="2026-01-01", classes=CLASSES, accuracy=None, **config):
    found = next(c for c in CELLS if c.name == cell and c.dataset == "fer2013plus")
    rng = np.random.default_rng([seed, *cell.encode()])
    labels = np.arange(200) % 4
    guess = np.where(rng.random(200) < found.accuracy / 100, labels, (labels + 1) % 4)
    score = 100 * (guess == labels).mean() if accuracy is None else accuracy
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [2.0, 1.0, 0.5], "monitor_accuracy": [50.0, 60, 70], "accuracy": [60.0, 70, score]})
    settings = {"dataset": dataset, "aug": found.aug, "lam": found.lam, "beta": found.beta, "gamma": found.gamma, "seed": seed, "epochs": 3, "width": 0.25,
                "profile": profile, "data": "f" * 16} | config
    return Run({"profile": profile, "dataset": dataset, "cell": cell, "seed": seed, "config": settings, "command": "papermill nbs/run.ipynb out.ipynb",
                "classes": classes, "monitor": "valid", "measured": "test", "n": 200, "protocols": protocols(history), "last_by_logits": score,
                "cost": {"seconds": 12.0, "images_per_second": 100.0, "training_flops": 1e9},
                "provenance": {"commit": commit, "dirty": False, "torch": "2.6", "finished": finished}}, history, np.eye(4)[guess], labels)


def put(folder, *runs):
    for k, run in enumerate(runs):
        place = Path(folder) / f"run{k}" / f"seed{run.metrics['seed']}"
        place.mkdir(parents=True)
        run.save(place)
    return Path(folder)


@pytest.fixture
def several(tmp_path):
    return put(tmp_path / "runs", *(made_up(cell, seed) for cell in ("baseline", "mixcut", "mixcut-lam-0.2") for seed in range(2)))


def test_empty_folder(tmp_path):
    assert R.load_runs(tmp_path) == ([], []) and R.load_runs(tmp_path / "nowhere") == ([], [])
    for number in TABLES:
        shown = R.laid_out(R.results([], number, "drawn"))
        assert set(shown.ours) == {"—"} and set(shown.n) == {"0"} and not set(shown.paper) & {"—"}
        assert all(line.startswith("papermill nbs/run.ipynb out.ipynb") for line in shown.command)
    assert "-p data_root DATA_ROOT" in R.results([], 3, "rafdb").command[0] and "-p dataset rafdb" in R.results([], 3, "fer2013plus").command[0]


@pytest.mark.parametrize("protocol", R.PROTOCOLS)
def test_one_run_has_no_interval(protocol):
    shown = R.laid_out(R.results([made_up()], 2, "drawn", protocol)).set_index("method")
    ours = shown.loc["Baseline+MixCut"]
    assert ours.ours == "—" if protocol == "last10" and made_up().metrics["protocols"]["last10"] is None else ours.ours.endswith("(n = 1)")
    assert "±" not in "".join(shown.ours) + "".join(shown["our gain"])
    assert set(R.claims([made_up(), made_up("baseline")], "drawn").verdict.dropna()) == {"cannot be told yet"}


@pytest.mark.parametrize("wrong, verdict", [(12, "cannot be told yet"), (70, "holds"), (0, "fails")])
def test_seeds_that_agree_by_chance_are_no_verdict(wrong, verdict):
    def missing(cell, seed, images):
        run = made_up(cell, seed, accuracy=100 - len(images) / 2)
        guess = run.labels.copy()
        guess[images] = (guess[images] + 1) % 4
        return replace(run, probabilities=np.eye(4)[guess])
    runs = [missing(cell, seed, images) for seed in range(2) for cell, images in (("mixcut", range(10)), ("baseline", range(10, 10 + wrong)))]
    judged = R.claims(runs, "drawn").iloc[0]
    assert (judged.gain, judged.half, judged.verdict) == ((wrong - 10) / 2, 0, verdict)
    each = 100 * np.repeat([1, -1, 0], [wrong, 10, 190 - wrong])  # what an image adds to the difference
    assert judged.images == pytest.approx(stats.t.ppf(0.975, 199) * each.std(ddof=1) / 200**0.5)


def test_a_conclusion_is_as_strong_as_its_weakest_comparison():
    judged = R.claims([], "fer2013plus").assign(verdict="holds")
    assert set(R.conclusions(judged).verdict) == {"holds"} and list(R.conclusions(judged).comparisons) == [2, 6, 6, 1]
    beside = (judged.better == "mixcut") & (judged.worse == "mixup")
    for said, verdict in (("cannot be told yet", "cannot be told yet"), ("fails", "fails"), (None, "cannot be told yet")):
        found = R.conclusions(judged.assign(verdict=judged.verdict.where(~beside, said)))
        assert list(found.verdict) == ["holds", verdict, "holds", "holds"] and found.missing[1] == 2 * (said is None)
    rivals = R.conclusions(judged.assign(verdict=judged.verdict.where(judged.better == "mixcut", "fails")))
    assert set(rivals.verdict) == {"holds"}  # what Cutout is worth is no conclusion about MixCut


def test_interval_is_students():
    mean, half = R.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])  # s = 1.5811, t = 2.7764
    assert mean == 3 and half == pytest.approx(2.7764 * 1.5811 / 5**0.5, abs=1e-3)


def test_seeds_are_paired():
    runs = [made_up("baseline", s, accuracy=None) for s in (0, 1, 2)] + [made_up("mixcut", s) for s in (1, 2, 5)]
    found = R.gain(runs, "drawn", "mixcut", "baseline")
    scores = {(r.metrics["cell"], r.metrics["seed"]): r.metrics["protocols"]["last"] for r in runs}
    assert found["pairs"] == 2
    assert found["gain"] == pytest.approx(np.mean([scores["mixcut", s] - scores["baseline", s] for s in (1, 2)]))
    assert "(2 pairs)" in R.laid_out(R.results(runs, 2, "drawn"))["our gain"][4]


def test_other_data_has_no_delta():
    runs = [made_up(cell, seed, dataset) for dataset in ("drawn", "fer2013plus") for cell in METHODS for seed in (0, 1)]
    drawn, real = R.laid_out(R.results(runs, 2, "drawn")), R.laid_out(R.results(runs, 2, "fer2013plus"))
    assert set(drawn["Δ"]) == set(drawn["paper inside?"]) == {"—"} and "—" not in set(real["Δ"]) and set(real["paper inside?"]) <= {"yes", "no"}
    assert "drawn faces" in R.table_item(runs, 2, "drawn").title and "last" in R.table_item(runs, 2, "drawn").caption


def test_torn_and_foreign_runs_are_named(several):
    os.truncate(several / "run0/seed0/predictions.npz", 30)
    (several / "run1/seed1/metrics.json").write_text("[1, 2]")
    (several / "killed/seed9").mkdir(parents=True)
    renamed = made_up("baseline")
    renamed.metrics["cell"] = "../../up"
    lying = made_up("baseline", 3)
    lying.metrics["protocols"]["last"] = 12.0
    put(several / "more", renamed, lying, made_up("mixcut", 4, dataset="mnist"), made_up("mixcut", 5, classes=["one"]))
    runs, skipped = R.load_runs(several)
    reasons = {entry["folder"]: entry["reason"] for entry in skipped}
    assert len(runs) == 4 and len(skipped) == 7 and str(several) not in "".join(reasons.values())
    for folder, words in {"run0/seed0": "predictions.npz", "run1/seed1": "records", "killed/seed9": "missing", "more/run0/seed0": "../../up",
                          "more/run1/seed3": "accuracy", "more/run2/seed4": "mnist", "more/run3/seed5": "classes"}.items():
        assert words in reasons[folder], reasons[folder]


def test_duplicates_count_once(several):
    shutil.copytree(several / "run0", several / "again")
    put(several / "later", made_up("mixcut", 0, finished="2026-02-02", commit="b" * 40))
    runs, skipped = R.load_runs(several)
    assert len(runs) == 6 and len(skipped) == 2 and all("same cell and seed" in entry["reason"] for entry in skipped)
    assert {R.code(run) for run in runs if (run.metrics["cell"], run.metrics["seed"]) == ("mixcut", 0)} == {"bbbbbbb"}


def test_one_profile_at_a_time(several):
    put(several / "other", made_up("mixup", 0, profile="long"))
    assert len(R.load_runs(several, "long")[0]) == 1 and len(R.load_runs(several, "demo")[0]) == 6
    assert "profile 'long'" in R.load_runs(several, "demo")[1][0]["reason"]


@pytest.mark.parametrize("change, word", [({"epochs": 9}, "epochs 9, not 3"), ({"width": 1.0}, "width 1.0"), ({"data": "0" * 16}, "data 0000"), ({"commit": "c" * 40}, "code ccccccc")])
def test_mixed_runs_are_flagged(change, word):
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)] + [made_up("mixup", 1, **change)]
    shown = R.laid_out(R.results(runs, 2, "drawn")).set_index("method")
    assert word in shown.note["Baseline+Mixup"] and not shown.note["Baseline"]
    assert "note" not in R.laid_out(R.results(runs[:4], 2, "drawn"))


@pytest.mark.parametrize("given, word", [({"runs": "no/such"}, "no such folder"), ({"protocol": "lats"}, "'last'"), ({"dataset": "drwan"}, "'drawn'"), ({"profile": "../x"}, "folder"),
                                         ({"out": "/proc/nothing"}, "written"), ({"rnus": "x"}, "did you mean 'runs'"), ({"dataset": 3}, "choose from"), ({"runs": 3}, "folder")])
def test_bad_parameters_are_refused(given, word):
    with pytest.raises(ReportError, match=re.escape(word)):
        R.settings_from(given)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ReportError, match="written"):
        Settings(out=str(tmp_path / "out"))


def test_records_alone_remake_the_report(several, tmp_path):
    """Collected, written, then made again from the collected records elsewhere: every byte is the same."""
    for source, out in ((several, "first"), (tmp_path / "first/runs", "second")):
        settings = Settings(runs=str(source), out=str(tmp_path / out))
        runs, skipped = R.records(settings)
        written = R.write(R.contents(runs, skipped), settings, runs)
        assert set(written) == PROMISED and len(runs) == 6 and not skipped
    files = {path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert {path.as_posix() for path in files if path.parts[0] != "runs"} == PROMISED
    assert {path.name for path in files if path.parts[0] == "runs"} == set(R.RECORDS)
    links = re.findall(r'href="([^#"]+)"', (tmp_path / "first/report.html").read_text())
    assert len(set(links)) == 6 and all((tmp_path / "first" / link).exists() for link in links)  # every run, beside its cell
    for path in files:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes(), path


def test_what_was_measured_on_what_is_said():
    runs = [made_up(cell, seed, dataset="fer2013plus", profile="mini") for cell in ("baseline", "mixcut") for seed in (0, 1)]
    text = R.table_item(runs, 2, "fer2013plus").caption
    assert "NOT the paper's protocol" in text and "Measured on the test split, 200 images." in text and "different images" not in text
    for run in runs:
        run.metrics["measured"] = "valid"
    captions = [R.table_item(runs, 2, "fer2013plus").caption, R.claims_item(runs, "fer2013plus").caption, R.lead(runs, "fer2013plus", "last"),
                *(item.caption for items in (R.evidence(runs, "fer2013plus").values(), further(runs, "fer2013plus")["Beyond the paper"]) for item in items)]
    assert len(captions) > 12
    assert "elsewhere? Measured on" in R.circumscribed([made_up(profile="digits")], ["drawn"])  # a title that ends in a mark of its own
    assert all("Measured on the validation split, 200 images." in text and "NOT the paper's protocol" in text for text in captions) and "between different images" in captions[0]


def test_names_are_escaped(tmp_path):
    item = R.skipped_item([{"folder": "<img src=x onerror=alert(1)>", "reason": "a | b & 5 % <i>"}])
    R.page({"<s>": [item]}, tmp_path / "page.html", "<title>", "<lead>")
    R.save(item, tmp_path)
    html = (tmp_path / "page.html").read_text()
    assert "<img" not in html and "<i>" not in html and "<s>" not in html and "&lt;title&gt;" in html and "<script" not in html
    assert r"a \| b" in (tmp_path / "tables/skipped.md").read_text() and r"\& 5 \%" in (tmp_path / "tables/skipped.tex").read_text()


def test_the_notebook(several, tmp_path):
    out = tmp_path / "report"
    papermill.execute_notebook(ROOT / "nbs/report.ipynb", tmp_path / "out.ipynb", {"runs": str(several), "out": str(out)}, progress_bar=False, cwd=tmp_path)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*") if "runs" not in path.relative_to(out).parts} == PROMISED | BEYOND | PROGRESS
    text = (out / "report.html").read_text()
    assert "6 runs of 3 of the paper&#39;s 17 cells" in text and str(tmp_path) not in text
    assert not [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", []) if o.output_type in ("stream", "error")]


def test_the_notebook_is_thin():
    cells = nbformat.read(ROOT / "nbs/report.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "def " not in code and "import pandas" not in code and [c for c in cells if "parameters" in c.metadata.get("tags", [])]
