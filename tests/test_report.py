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

import mixcut
from mixcut import report as R
from mixcut.beyond import further
from mixcut.evaluate import Predictions, Run, protocols
from mixcut.records import load_run, save_run
from mixcut.paper import CELLS, METHODS, TABLES
from mixcut.report import ReportError, Settings

ROOT = Path(mixcut.__file__).parent.parent
CLASSES = ["neutral", "happiness", "surprise", "sadness"]
ITEMS = {"table": [*(f"table-{k}" for k in range(1, 7)), "conclusions", "claims", "errata", "others", "provenance", "runs", "skipped", "protocols-drawn", "crops-drawn"],
         "figure": ["figure-1", "figure-2", "figure-3", *(f"{kind}-drawn" for kind in ("accuracy", "choice", "curves", "confusion"))]}
PROMISED = {"report.html", *(f"tables/{name}.{kind}" for name in ITEMS["table"] for kind in ("csv", "md", "tex")),
            *(f"figures/{name}.{kind}" for name in ITEMS["figure"] for kind in ("svg", "png"))}
BEYOND = {*(f"tables/{name}-drawn.{kind}" for name in ("covered", "calibration", "recall") for kind in ("csv", "md", "tex")),
          *(f"figures/{name}-figure-drawn.{kind}" for name in ("calibration", "recall") for kind in ("svg", "png"))}  # of 17_beyond, in the notebook
PROGRESS = {f"tables/progress.{kind}" for kind in ("csv", "md", "tex")}  # where the profile is one of the grid's


def predictions(cell, seed, split, images, epochs, classes):
    """A split of some images, of which some are hard for every network; the more accurate a cell, the fewer."""
    accuracy = next(c for c in CELLS if c.name == cell and c.dataset == "fer2013plus").accuracy / 100
    hard, own = np.random.default_rng(len(split)).random(images), np.random.default_rng([seed, len(split), *cell.encode()])
    labels = np.arange(images) % 4
    wrong = 0.8 * hard + 0.2 * own.random((min(epochs, 10), images)) > accuracy
    guess = np.where(wrong, (labels + 1) % 4, labels).astype(np.uint8)
    return Predictions(np.eye(len(classes))[guess[-1] % len(classes)], labels, np.arange(images) % 10 == 0, guess, guess[:, ::-1][:, ::-1])


def made_up(cell="mixcut", seed=0, dataset="drawn", commit="a" * 40, profile="demo", finished="2026-01-01", classes=CLASSES, epochs=12, images=200, splits=("valid", "test"), source="votes",
            overrides=None, **config):
    found = next(c for c in CELLS if c.name == cell and c.dataset == "fer2013plus")
    seen = {split: predictions(cell, seed, split, images, epochs, classes) for split in splits}
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "train_loss": 1.0, "monitor_accuracy": np.linspace(50, 80, epochs)})
    for split, one in seen.items():
        for name, kept in (("accuracy", slice(None)), ("without_copies", ~one.copies)):
            history[f"{split}_{name}"] = [np.nan] * (epochs - len(one.ten_crop)) + list(100 * (one.ten_crop == one.labels)[:, kept].mean(1))
    facts = {split: {"n": images, "copies": int(one.copies.sum()), "protocols": protocols(history, f"{split}_accuracy"), "without_copies": protocols(history, f"{split}_without_copies")}
             for split, one in seen.items()}
    settings = {"dataset": dataset, "aug": found.aug, "lam": found.lam, "beta": found.beta, "gamma": found.gamma, "seed": seed, "epochs": epochs, "width": 0.25,
                "profile": profile, "data": "f" * 16} | config
    return Run({"profile": profile, "overrides": overrides or {}, "dataset": dataset, "label_source": source, "cell": cell, "seed": seed, "config": settings, "command": "papermill nbs/run.ipynb out.ipynb",
                "classes": classes, "monitor": splits[0], "measured": splits[-1], "splits": facts, "last_by_logits": 80.0,
                "cost": {"seconds": 12.0, "images_per_second": 100.0, "training_flops": 1e9},
                "provenance": {"commit": commit, "dirty": False, "torch": "2.6", "finished": finished}}, history, seen)


def put(folder, *runs):
    for k, run in enumerate(runs):
        place = Path(folder) / f"run{k}" / f"seed{run.metrics['seed']}"
        place.mkdir(parents=True)
        save_run(run, place)
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
def test_one_run_has_no_interval_and_no_verdict(protocol):
    runs = [made_up(dataset="fer2013plus"), made_up("baseline", dataset="fer2013plus")]
    shown = R.laid_out(R.results(runs, 2, "fer2013plus", protocol)).set_index("method")
    assert (shown.ours["Baseline+MixCut"] == "—") == (protocol == "best_test") and shown.n["Baseline+MixCut"] == ("0" if protocol == "best_test" else "1")
    assert "±" not in "".join(shown.ours) + "".join(shown["our gain"])
    assert R.judged(runs, "fer2013plus", protocol).filter(like="verdict").isna().all(axis=None)


def test_a_single_seed_borrows_the_spread_of_the_others():
    runs = [made_up("mixcut"), *(made_up("baseline", seed) for seed in range(3))]
    shown = R.laid_out(R.results(runs, 2, "drawn")).set_index("method")
    assert all("±" in shown.ours[name] for name in ("Baseline", "Baseline+MixCut")) and "±" in shown["our gain"]["Baseline+MixCut"] and shown.n["Baseline+MixCut"] == "1"


def test_seeds_that_agree_by_chance_still_have_the_error_of_images():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        twin = made_up(run.metrics["cell"], 0)
        run.predictions = twin.predictions
    found = R.results(runs, 2, "drawn").set_index("cell")
    assert found.half["mixcut"] > 1 and found.gain_half["mixcut"] > 0


def test_verdicts_are_for_the_papers_data_sets_only():
    for dataset, expected in (("fer2013plus", True), ("drawn", False)):
        told = R.judged([made_up(cell, seed, dataset) for cell in METHODS for seed in (0, 1)], dataset)
        assert told["value, all images"].notna().sum() == 2 + 7 and told["verdict, all images"].notna().any() == expected
    items = R.judged_items([made_up(cell, seed) for cell in METHODS for seed in (0, 1)], "drawn")
    assert all("no verdicts" in item.caption and "verdict" not in item.frame for item in items)


def test_runs_of_other_circumstances_are_not_compared():
    """Other images, epochs, precision, votes or splits: none is paired with the rest, and each is named."""
    usual = [made_up(cell, seed, "fer2013plus", "c" * 40, "mini") for cell in ("baseline", "mixcut") for seed in (0, 1)]
    other = {"data 0000000000000000, not ffffffffffffffff": {"data": "0" * 16}, "epochs 20, not 12": {"epochs": 20, "overrides": {"epochs": 20}},
             "precision bf16, not auto": {"precision": "bf16"}, "labels label.csv, the older votes, not votes": {"source": "label.csv"}, "measured on valid 200, not valid 200, test 200": {"splits": ("valid",)}}
    strange = [made_up("mixup", 1, "fer2013plus", "c" * 40, "mini", **change) for change in other.values()]
    own, others = R.sort_out(strange + usual)
    assert own == usual and {what: len(group) for what, group in others} == dict.fromkeys(other, 1)
    sections = R.contents(strange + usual, [], "fer2013plus", profile="mini")
    items = {item.name: item for items in sections.values() for item in items}
    assert items["table-2"].frame.set_index("method").ours["Baseline+Mixup"] == "—" and set(items["others"].frame["what is other"]) == set(other)
    assert "epochs 20, not 12" in R.lead(strange + usual, "fer2013plus") and len(items["runs"].frame) == 9
    assert all(line in "".join(items["claims"].frame["comparison"]) for line in ("MixCut − Baseline",)) and (items["claims"].frame.ours != "—").sum() == 1


def test_older_records_say_that_they_are(tmp_path):
    """The seven runs of older votes: they load, say so, and stand apart from new ones."""
    runs, skipped = R.load_runs(ROOT / "reports/older-votes/runs", "mini")
    assert len(runs) == 7 and not skipped and {R.labels_of(run) for run in runs} == {"label.csv, the older votes"}
    assert all(list(run.predictions) == ["valid"] and run.score("last", copies=False) is None and run.measured.right("last10") is None for run in runs)
    new = [made_up(cell, seed, "fer2013plus", profile="mini") for cell in METHODS for seed in (0, 1)]
    own, [(what, group)] = R.sort_out([*runs, *new])
    assert own == new and group == runs and "label.csv, the older votes" in what and "measured on valid 3,555" in what
    assert R.headline(runs) == "last" and R.headline(new) == "last10"
    assert "Labels: label.csv, the older votes." in R.table_item(runs, 2, "fer2013plus", "last").caption
    assert set(R.laid_out(R.results(runs, 2, "fer2013plus", "last"))["without copies"]) == {"—"}


def test_without_copies_and_both_splits_are_counted_by_hand():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    by_hand = {view: [] for view in R.VIEWS}
    for run in runs:
        right = {split: (seen.ten_crop == seen.labels).mean(0) for split, seen in run.predictions.items()}
        kept = ~run.predictions["test"].copies
        for view, values in zip(R.VIEWS, (right["test"], right["test"][kept], np.concatenate([right["valid"], right["test"]]))):
            by_hand[view].append(100 * values.mean())
    told = R.judged(runs, "drawn").set_index("name")
    for view, (a, b, c, d) in by_hand.items():
        assert told.loc["MixCut − Baseline", f"value, {view}"].iloc[0] == pytest.approx((c + d - a - b) / 2)
    assert R.scores(runs, "drawn", "baseline", copies=False).tolist() == pytest.approx(by_hand["without copies"][:2])


def test_a_test_split_of_copies_alone_is_a_dash():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        run.predictions["test"].copies[:] = True
        run.metrics["splits"]["test"] |= {"copies": 200, "without_copies": dict.fromkeys(R.PROTOCOLS)}
    shown = R.laid_out(R.results(runs, 2, "drawn")).set_index("method")
    assert set(shown["without copies"]) == set(shown["gain without copies"]) == {"—"} and "±" in shown["our gain"]["Baseline+MixCut"]
    assert "200 of them copies" in R.circumscribed(runs, ["drawn"])


def test_the_papers_own_uncertainty():
    runs = [made_up(cell, seed, "fer2013plus") for cell in METHODS for seed in (0, 1)]
    half = {dataset: R.paper_uncertainty(runs, dataset) for dataset in ("fer2013plus", "rafdb")}
    assert 0 < half["fer2013plus"] < half["rafdb"] and np.isnan(R.paper_uncertainty([], "fer2013plus"))  # RAF-DB has fewer test images
    caption = R.judged_items(runs, "fer2013plus")[1].caption
    assert f"± {half['fer2013plus']:.2f} on Fer2013Plus" in caption and "of its 7 differences" in caption


def test_ten_crops_are_compared_with_one():
    runs = [made_up("baseline"), made_up("mixcut")]
    runs[1].predictions["test"].one_crop = np.zeros_like(runs[1].predictions["test"].one_crop)
    found = R.crops_item(runs, "drawn").numbers.set_index("name")
    assert found["ten crops add"]["baseline"] == 0 and found["one crop"]["mixcut"] == 25 and found["gain, one crop"]["mixcut"] == pytest.approx(25 - found["one crop"]["baseline"])


def test_overridden_runs_keep_a_folder_of_their_own(tmp_path):
    put(tmp_path / "a", made_up("mixcut", profile="mini"), made_up("mixcut", profile="mini", epochs=20, overrides={"epochs": 20}))
    assert not R.collect(tmp_path / "a", tmp_path / "kept", "mini")
    assert sorted(path.parent.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("metrics.json")) == ["runs/drawn/mixcut/epochs-20/seed0", "runs/drawn/mixcut/seed0"]
    assert not R.collect(tmp_path / "a", tmp_path / "kept", "mini") and len(R.load_runs(tmp_path / "kept/runs", "mini")[0]) == 2


def test_other_data_has_no_delta():
    runs = [made_up(cell, seed, dataset) for dataset in ("drawn", "fer2013plus") for cell in METHODS for seed in (0, 1)]
    drawn, real = R.laid_out(R.results(runs, 2, "drawn")), R.laid_out(R.results(runs, 2, "fer2013plus"))
    assert set(drawn["Δ"]) == {"—"} and "—" not in set(real["Δ"])
    assert "drawn faces" in R.table_item(runs, 2, "drawn").title and "last10" in R.table_item(runs, 2, "drawn").caption


def test_torn_and_foreign_runs_are_named(several):
    os.truncate(several / "run0/seed0/predictions.npz", 30)
    (several / "run1/seed1/metrics.json").write_text("[1, 2]")
    (several / "killed/seed9").mkdir(parents=True)
    renamed = made_up("baseline")
    renamed.metrics["cell"] = "../../up"
    lying = made_up("baseline", 3)
    lying.metrics["splits"]["test"]["protocols"]["last"] = 12.0
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
    put(several / "other", made_up("mixup", 0, profile="digits"))
    assert len(R.load_runs(several, "digits")[0]) == 1 and len(R.load_runs(several, "demo")[0]) == 6
    assert "profile 'digits'" in R.load_runs(several, "demo")[1][0]["reason"]
    assert R.load_runs(several, "paper")[0] == []
    with pytest.raises(ReportError, match="no run of the profile 'paper', only of: demo, digits"):
        R.records(Settings(runs=str(several), profile="paper"))


@pytest.mark.parametrize("given, word", [({"runs": "no/such"}, "no such folder"), ({"protocol": "lats"}, "'last'"), ({"dataset": "drwan"}, "'drawn'"), ({"profile": "../x"}, "choose from quick"),
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
        settings = Settings(runs=str(source), out=str(tmp_path / out), profile="demo")
        runs, skipped = R.records(settings)
        written = R.write(R.contents(runs, skipped, "drawn"), settings, runs)
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
    assert "NOT the paper's protocol" in text and "Labels: votes." in text and "Measured on the test split, 200 images, 20 of them copies of training images." in text and "different images" not in text
    for run in runs:
        run.metrics |= {"measured": "valid", "overrides": {"epochs": 12}}
    captions = [R.table_item(runs, 2, "fer2013plus").caption, *(item.caption for item in R.judged_items(runs, "fer2013plus")), R.lead(runs, "fer2013plus"),
                *(item.caption for items in (R.evidence(runs, "fer2013plus").values(), further(runs, "fer2013plus")["Beyond the paper"]) for item in items)]
    assert len(captions) > 12
    assert "elsewhere? Labels" in R.circumscribed([made_up(profile="digits")], ["drawn"])  # a title that ends in a mark of its own
    assert all("Measured on the validation split, 200 images" in text and "NOT the paper's protocol" in text and "NOT the profile's: epochs 12." in text for text in captions)
    assert "between different images" in captions[0]


def test_names_are_escaped(tmp_path):
    item = R.skipped_item([{"folder": "<img src=x onerror=alert(1)>", "reason": "a | b & 5 % <i>"}])
    R.page({"<s>": [item]}, tmp_path / "page.html", "<title>", "<lead>")
    R.save(item, tmp_path)
    html = (tmp_path / "page.html").read_text()
    assert "<img" not in html and "<i>" not in html and "<s>" not in html and "&lt;title&gt;" in html and "<script" not in html
    assert r"a \| b" in (tmp_path / "tables/skipped.md").read_text() and r"\& 5 \%" in (tmp_path / "tables/skipped.tex").read_text()


def test_the_notebook(several, tmp_path):
    out = tmp_path / "report"
    papermill.execute_notebook(ROOT / "nbs/report.ipynb", tmp_path / "out.ipynb", {"runs": str(several), "out": str(out), "profile": "demo"}, progress_bar=False, cwd=tmp_path)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*") if "runs" not in path.relative_to(out).parts} == PROMISED | BEYOND | PROGRESS
    text = (out / "report.html").read_text()
    assert "6 runs of 3 of the paper&#39;s 17 cells" in text and str(tmp_path) not in text
    assert not [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", []) if o.output_type in ("stream", "error")]


def test_the_notebook_is_thin():
    cells = nbformat.read(ROOT / "nbs/report.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "def " not in code and "import pandas" not in code and [c for c in cells if "parameters" in c.metadata.get("tags", [])]
