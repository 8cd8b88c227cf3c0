"""mixcut.report on made-up records: folders that are empty, torn, doubled, mixed or foreign."""
import os
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

import mixcut
from mixcut import report as R
from mixcut.config import ConfigError, from_parameters
from mixcut.evaluate import Predictions, Run, protocols
from mixcut.paper import CELLS, METHODS, TABLES
from mixcut.records import save_run
from mixcut.report import Settings

ROOT = Path(mixcut.__file__).parent.parent
CLASSES = ["neutral", "happiness", "surprise", "sadness"]
TABLES_WRITTEN = [*(f"table-{k}" for k in (2, 4, 5, 6)), "conclusions", "claims", "errata", "others",
                  "protocols", "progress", "recall-drawn", "runs", "skipped"]
FIGURES_WRITTEN = ["figure-1", *(f"{kind}-drawn" for kind in ("accuracy", "curves", "confusion"))]
PROMISED = {"report.html",
            *(f"tables/{name}.{kind}" for name in TABLES_WRITTEN for kind in ("csv", "md")),
            *(f"figures/{name}.{kind}" for name in FIGURES_WRITTEN for kind in ("svg", "png"))}


def predictions(cell, seed, split, images, epochs, classes):
    """A split, of whose images some are hard for every network; the more accurate a cell, the fewer."""
    accuracy = next(c for c in CELLS if c.name == cell and c.dataset == "fer2013plus").accuracy / 100
    hard = np.random.default_rng(len(split)).random(images)
    own = np.random.default_rng([seed, len(split), *cell.encode()])
    labels = np.arange(images) % 4
    wrong = 0.8 * hard + 0.2 * own.random((min(epochs, 10), images)) > accuracy
    guess = np.where(wrong, (labels + 1) % 4, labels).astype(np.uint8)
    probabilities = np.eye(len(classes))[guess[-1] % len(classes)]
    return Predictions(probabilities, labels, np.arange(images) % 10 == 0, guess, guess.copy())


def made_up(cell="mixcut", seed=0, dataset="drawn", commit="a" * 40, profile="demo", finished="2026-01-01",
            classes=CLASSES, epochs=12, images=200, splits=("valid", "test"), source="votes", overrides=None,
            **config):
    found = next(c for c in CELLS if c.name == cell and c.dataset == "fer2013plus")
    seen = {split: predictions(cell, seed, split, images, epochs, classes) for split in splits}
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "train_loss": 1.0,
                            "monitor_accuracy": np.linspace(50, 80, epochs)})
    facts = {}
    for split, one in seen.items():
        for name, kept in (("accuracy", slice(None)), ("without_copies", ~one.copies)):
            scores = list(100 * (one.ten_crop == one.labels)[:, kept].mean(1))
            history[f"{split}_{name}"] = [np.nan] * (epochs - len(one.ten_crop)) + scores
        facts[split] = {"n": images, "copies": int(one.copies.sum()),
                        "protocols": protocols(history, f"{split}_accuracy"),
                        "without_copies": protocols(history, f"{split}_without_copies")}
    settings = {"dataset": dataset, "aug": found.aug, "lam": found.lam, "beta": found.beta, "seed": seed,
                "gamma": found.gamma, "epochs": epochs, "width": 0.25, "profile": profile, "data": "f" * 16}
    settings |= config
    metrics = {"profile": profile, "overrides": overrides or {}, "dataset": dataset, "label_source": source,
               "cell": cell, "seed": seed, "config": settings, "command": "papermill nbs/run.ipynb out.ipynb",
               "classes": classes, "monitor": splits[0], "measured": splits[-1], "splits": facts,
               "last_by_logits": 80.0,
               "cost": {"seconds": 12.0, "images_per_second": 100.0, "training_flops": 1e9},
               "provenance": {"commit": commit, "dirty": False, "torch": "2.6", "finished": finished}}
    return Run(metrics, history, seen)


def frame(*runs):
    """Runs as `load_runs` gives them."""
    rows = pd.DataFrame([R._row(run) for run in runs], columns=R._COLUMNS)
    return R._mark_others(rows.astype(dict.fromkeys(R.SCORES, float)))


def of_cells(*cells, dataset="drawn", seeds=2, **more):
    return frame(*(made_up(cell, seed, dataset, **more) for cell in cells for seed in range(seeds)))


def put(folder, *runs):
    for k, run in enumerate(runs):
        place = Path(folder) / f"run{k}" / f"seed{run.metrics['seed']}"
        place.mkdir(parents=True)
        save_run(run, place)
    return Path(folder)


@pytest.fixture
def several(tmp_path):
    cells = ("baseline", "mixcut", "mixcut-lam-0.2")
    return put(tmp_path / "runs", *(made_up(cell, seed) for cell in cells for seed in range(2)))


def test_an_empty_folder_makes_a_report_of_dashes(tmp_path):
    found, skipped = R.load_runs(tmp_path, "mini")
    assert found.empty and skipped.empty and R.load_runs(tmp_path / "nowhere", "mini")[0].empty
    items = {item.name: item for items in R.contents(found, skipped, "mini").values() for item in items}
    for number, paper in TABLES.items():
        shown, item = R.as_text(R.results(found, number, paper.dataset)), items[f"table-{number}"]
        assert set(shown.ours) == {"—"} and set(shown.n) == {"0"} and not set(shown.paper) & {"—"}
        assert item.folded.count("papermill nbs/run.ipynb out.ipynb -p profile mini") == len(shown)
    assert "-p dataset rafdb -p data_root DATA_ROOT" in items["table-3"].folded
    assert "No runs yet" in R.findings(found, "mini")


def test_one_run_has_no_interval_and_no_verdict():
    found = of_cells("baseline", "mixcut", dataset="fer2013plus", seeds=1)
    shown = R.as_text(R.results(found, 2, "fer2013plus"))
    assert shown.ours["mixcut"] != "—" and shown.n["mixcut"] == "1"
    assert "±" not in "".join(shown.ours) + "".join(shown.gain)
    assert R.judged(found, "fer2013plus").filter(like="verdict").isna().all(axis=None)
    assert "No verdict yet" in R.findings(found, "mini")


def test_a_single_seed_borrows_the_spread_of_the_others():
    found = frame(made_up("mixcut"), *(made_up("baseline", seed) for seed in range(3)))
    shown = R.as_text(R.results(found, 2, "drawn"))
    assert all("±" in shown.ours[name] for name in ("baseline", "mixcut"))
    assert "±" in shown.gain["mixcut"] and shown.n["mixcut"] == "1"


def test_seeds_that_agree_by_chance_still_have_the_error_of_images():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        run.predictions = made_up(run.metrics["cell"], 0).predictions
    found = R.results(frame(*runs), 2, "drawn")
    assert found["ours ±"]["mixcut"] > 1 and found["gain ±"]["mixcut"] > 0


def test_verdicts_are_for_the_papers_data_sets_only():
    for dataset, expected in (("fer2013plus", True), ("drawn", False)):
        found = of_cells(*METHODS, dataset=dataset)
        told = R.judged(found, dataset)
        assert told["Δ"].notna().sum() == 2 + 7 and ("verdict" in told) == expected
        assert ("not the paper's images" in R.findings(found, "demo")) != expected


def test_runs_of_other_circumstances_are_not_compared():
    """Other images, epochs, precision, votes or splits: none is paired with the rest, and each is named."""
    usual = [made_up(cell, seed, "fer2013plus", "c" * 40, "mini")
             for cell in ("baseline", "mixcut") for seed in (0, 1)]
    other = {"data 0000000000000000, not ffffffffffffffff": {"data": "0" * 16},
             "epochs 20, not 12": {"epochs": 20, "overrides": {"epochs": 20}},
             "precision bf16, not auto": {"precision": "bf16"},
             "votes label.csv, not votes": {"source": "label.csv"},
             "measured on valid 200, not valid 200, test 200": {"splits": ("valid",)}}
    strange = [made_up("mixup", 1, "fer2013plus", "c" * 40, "mini", **change) for change in other.values()]
    found = frame(*strange, *usual)
    assert found.other.tolist() == [*other, "", "", "", ""]
    sections = R.contents(found, pd.DataFrame(), "mini")
    items = {item.name: item.content for items in sections.values() for item in items}
    assert R.as_text(items["table-2"]).ours["mixup"] == "—" and set(items["others"].other) == set(other)
    assert len(items["runs"]) == 9 and items["claims"]["Δ"].notna().sum() == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_other_circumstances_have_a_sentence_and_a_note(seeds):
    def runs(count, **change):
        return [made_up(cell, seed, "fer2013plus", "c" * 40, "mini", **change)
                for cell, more in (("baseline", 0), ("mixcut", 1)) for seed in range(min(2, count + more))]
    found = frame(*runs(2), *runs(seeds, epochs=20, overrides={"epochs": 20}))
    sections = R.contents(found, pd.DataFrame(), "mini")
    _, others, curves = sections["Protocols"]
    assert curves.name == "other-curves-fer2013plus-1" and "epochs 20, not 12" in curves.caption
    assert len(R.plot_accuracy(found[found.other == ""]).axes[0].get_yticks()) == 2  # no rows without runs
    [told] = R.compare_others(others.content)
    assert "on FER2013Plus with epochs 20, not 12: " in told and f"(n = {seeds}" in told
    assert ("too few seeds" in told) == (seeds == 1) == ("±" not in told)
    assert told in R.findings(found, "mini")
    marked = "NOT the profile's: epochs 20"
    assert marked in others.note and marked not in sections["Results"][0].note


def test_older_records_say_that_they_are():
    """The seven runs of older votes: they load, and stand apart from new ones."""
    found, skipped = R.load_runs(ROOT / "reports/older-votes/runs", "mini")
    assert len(found) == 7 and skipped.empty
    assert set(found.votes) == {"not recorded"} and set(found.other) == {""}
    assert R.headline(found) == "last" and found["without copies"].isna().all()
    new = [made_up(cell, seed, "fer2013plus", profile="mini") for cell in METHODS for seed in (0, 1)]
    both = frame(*found.run, *new)
    assert both.other[7:].eq("").all() and R.headline(both[7:]) == "last10"
    assert both.other[:7].str.contains("measured on valid 3,555").all()
    [said] = [line for line in R.findings(both, "mini").splitlines() if "measured on valid 3,555" in line]
    assert said.endswith(": −0.15 ± 0.92 points (n = 2).")
    shown = R.as_text(R.results(found, 2, "fer2013plus"))
    assert set(shown["gain without copies"]) == {"—"} and "±" in shown.gain["mixcut"]
    assert "— points" not in R.findings(found, "mini")


def test_without_copies_and_both_splits_are_counted_by_hand():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    by_hand = {"Δ": [], "Δ, without copies": [], "Δ, without copies, valid and test": []}
    for run in runs:
        right = {split: (seen.ten_crop == seen.labels).mean(0) for split, seen in run.predictions.items()}
        kept = {split: values[~run.predictions[split].copies] for split, values in right.items()}
        arrays = right["test"], kept["test"], np.concatenate([kept["valid"], kept["test"]])
        for view, values in zip(by_hand, arrays, strict=True):
            by_hand[view].append(100 * values.mean())
    told = R.judged(frame(*runs), "drawn").iloc[0]
    for view, (a, b, c, d) in by_hand.items():
        assert told[view] == pytest.approx((c + d - a - b) / 2)
    assert frame(*runs)["without copies"].tolist() == pytest.approx(by_hand["Δ, without copies"])


def test_a_split_measured_in_one_epoch_only_leaves_the_view_of_both_empty():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        run.predictions["valid"].ten_crop = run.predictions["valid"].ten_crop[:1]
    told = R.judged(frame(*runs), "drawn").iloc[0]
    assert np.isnan(told["Δ, without copies, valid and test"]) and not np.isnan(told["Δ, without copies"])


def test_clean_statistics_count_only_if_every_run_has_them():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        seen, share = run.measured, 0.5 if run.metrics["cell"] == "mixcut" else 1
        seen.clean = np.where(np.arange(len(seen.labels)) < share * len(seen.labels), seen.labels, 99)
    assert "clean statistics −50.00 (" in R.findings(frame(*runs), "demo")
    runs[0].measured.clean = None
    assert "clean statistics" not in R.findings(frame(*runs), "demo")
    shown = R.protocol_table(frame(*runs)).set_index("cell")["clean statistics"]
    assert np.isnan(shown["baseline"]) and shown["mixcut"] == 50


def test_a_test_split_of_copies_alone_is_a_dash():
    runs = [made_up(cell, seed) for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        run.predictions["test"].copies[:] = True
        run.metrics["splits"]["test"] |= {"copies": 200, "without_copies": dict.fromkeys(R.PROTOCOLS)}
    shown = R.as_text(R.results(frame(*runs), 2, "drawn"))
    assert set(shown["gain without copies"]) == {"—"} and "±" in shown.gain["mixcut"]
    assert "200 of them copies" in R.conditions(frame(*runs))


def test_ten_crops_are_compared_with_one():
    runs = [made_up("baseline"), made_up("mixcut")]
    runs[1].predictions["test"].one_crop = np.zeros_like(runs[1].predictions["test"].one_crop)
    found = R.protocol_table(frame(*runs)).set_index("cell")
    assert found["gain by ten crops"]["baseline"] == 0 and found["one crop"]["mixcut"] == 25


def test_recalls_are_counted_by_hand():
    run = made_up("mixcut")
    found, right = R.recall_table(frame(run)), run.measured.right("last")
    assert found.images.tolist() == [50] * 4 and found["class"].tolist() == CLASSES
    assert np.allclose(found.MixCut, [100 * right[run.labels == k].mean() for k in range(4)])


def test_overridden_runs_keep_a_folder_of_their_own(tmp_path):
    put(tmp_path / "a", made_up("mixcut", profile="mini"),
        made_up("mixcut", profile="mini", epochs=20, overrides={"epochs": 20}))
    settings = Settings(runs=str(tmp_path / "a"), out=str(tmp_path / "kept"), profile="mini")
    for _ in range(2):
        found, skipped = R.records(settings)
        assert len(found) == 2 and skipped.empty
    kept = sorted(path.parent for path in tmp_path.glob("kept/**/metrics.json"))
    folders = [path.relative_to(tmp_path / "kept").as_posix() for path in kept]
    assert folders == ["runs/drawn/mixcut/epochs-20/seed0", "runs/drawn/mixcut/seed0"]


def test_other_data_has_no_delta():
    datasets = ("drawn", "fer2013plus")
    found = frame(*(made_up(cell, 0, dataset) for dataset in datasets for cell in METHODS))
    drawn, real = (R.as_text(R.results(found, 2, dataset)) for dataset in datasets)
    assert set(drawn["ours − paper"]) == {"—"} and "—" not in set(real["ours − paper"])
    names = [item.name for item in R.contents(found, pd.DataFrame(), "demo")["The paper's tables"]]
    assert "table-2" in names and "table-2-fer2013plus" in names and len(names) == len(set(names))


def test_torn_and_foreign_runs_are_named(several):
    os.truncate(several / "run0/seed0/predictions.npz", 30)
    (several / "run1/seed1/metrics.json").write_text("[1, 2]")
    (several / "killed/seed9").mkdir(parents=True)
    renamed = made_up("baseline")
    renamed.metrics["cell"] = "../../up"
    lying = made_up("baseline", 3)
    lying.metrics["splits"]["test"]["protocols"]["last"] = 12.0
    costless = made_up("baseline", 6)
    del costless.metrics["cost"]
    put(several / "more", renamed, lying, made_up("mixcut", 4, dataset="mnist"),
        made_up("mixcut", 5, classes=["one"]), costless)
    runs, skipped = R.load_runs(several, "demo")
    reasons = dict(zip(skipped.folder, skipped.reason, strict=True))
    assert len(runs) == 4 and len(skipped) == 8 and str(several) not in "".join(reasons.values())
    for folder, words in {
            "run0/seed0": "predictions.npz", "run1/seed1": "records", "killed/seed9": "missing",
            "more/run0/seed0": "../../up", "more/run1/seed3": "accuracy", "more/run2/seed4": "mnist",
            "more/run3/seed5": "accuracy", "more/run4/seed6": "'cost' is missing"}.items():
        assert words in reasons[folder], reasons[folder]


def test_duplicates_count_once(several):
    shutil.copytree(several / "run0", several / "again")
    put(several / "later", made_up("mixcut", 0, finished="2026-02-02", commit="b" * 40))
    found, skipped = R.load_runs(several, "demo")
    assert len(found) == 6 and len(skipped) == 2 and skipped.reason.str.contains("same cell and seed").all()
    assert found.commit[(found.cell == "mixcut") & (found.seed == 0)].tolist() == ["bbbbbbb"]


def test_a_report_holds_no_runs_but_those_it_was_asked_for(several, tmp_path):
    """A clone's folder of reports holds our records."""
    out = tmp_path / "out"
    put(out / "runs", made_up("mixcut", 9))
    found, skipped = R.records(Settings(runs=str(several), out=str(out), profile="demo"))
    assert len(found) == 6 and 9 not in set(found.seed)
    assert skipped.folder.tolist() == ["run0/seed9"] and "of an earlier report" in skipped.reason[0]
    assert (out / "runs/run0/seed9").exists() and len(R.records(Settings(
        runs=str(out / "runs"), profile="demo"))[0]) == 7


def test_one_profile_at_a_time(several):
    put(several / "other", made_up("mixup", 0, profile="digits"))
    assert len(R.load_runs(several, "digits")[0]) == 1 and len(R.load_runs(several, "demo")[0]) == 6
    assert R.load_runs(several, "demo")[1].reason.tolist() == ["of another profile: digits"]
    assert R.load_runs(several, "paper")[0].empty
    with pytest.raises(ConfigError, match="no runs of the profile 'paper', only of demo, digits"):
        R.records(Settings(runs=str(several), profile="paper"))


@pytest.mark.parametrize("given, word", [
    ({"runs": "no/such"}, "no such folder"), ({"profile": "../x"}, "profile"),
    ({"profile": []}, "profile"), ({"out": "/proc/nothing"}, "written"),
    ({"rnus": "x"}, "did you mean 'runs'"), ({"runs": 3}, "valid string")])
def test_bad_parameters_are_refused(given, word):
    with pytest.raises(ConfigError, match=re.escape(word)):
        R.records(from_parameters(given, Settings))


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match="written"):
        R.records(Settings(out=str(tmp_path / "out")))


def written(out):
    paths = [path.relative_to(out) for path in out.rglob("*.*")]
    return {path.as_posix() for path in paths if path.parts[0] != "runs"}


def test_records_alone_remake_the_report(several, tmp_path):
    """Collected, written, then made again from what was collected: every byte is the same."""
    for source, out in ((several, "first/a"), (tmp_path / "first/a/runs", "second/a")):
        settings = Settings(runs=str(source), out=str(tmp_path / out), profile="demo")
        found, skipped = R.records(settings)
        R.write(R.contents(found, skipped, "demo"), R.findings(found, "demo"), settings.out)
        assert written(tmp_path / out) == PROMISED and len(found) == 6 and skipped.empty
    first = tmp_path / "first"
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    kept = {path.name for path in files if path.parts[1] == "runs"}
    assert kept == set(R.RECORDS) - {"covered.npz", "clean.npz"}
    for path in files:
        assert (first / path).read_bytes() == (tmp_path / "second" / path).read_bytes(), path


def test_what_was_measured_on_what_is_said():
    found = of_cells("baseline", "mixcut", dataset="fer2013plus", profile="mini", splits=("test", "valid"),
                     overrides={"epochs": 12})
    sections = R.contents(found, pd.DataFrame(), "mini")
    notes = [item.note for name, items in sections.items() if name != "Records" for item in items]
    assert len(notes) > 10
    written = R.files_of(sections["Results"][0])["tables/conclusions.md"].decode()
    for text in (*notes, R.findings(found, "mini"), written):
        assert "200 images of the valid split, 20 of them copies" in text and "votes: votes" in text
        assert "NOT the paper's protocol" in text and "NOT the profile's: epochs 12." in text
    assert "do not follow the paper's protocol" in R.findings(found, "mini")


def test_sentences_follow_from_their_numbers():
    runs = [made_up(cell, seed, "fer2013plus") for cell in ("baseline", "mixcut") for seed in (0, 1)]
    row = R.judged(frame(*runs), "fer2013plus").iloc[0]
    assert R.with_interval(row["Δ"], row["Δ ±"], True) in R.claim_sentence(row)
    for run in runs:  # MixCut now knows nothing
        if run.metrics["cell"] == "mixcut":
            for seen in run.predictions.values():
                seen.ten_crop[:] = (seen.labels + 1) % 4
    assert "**contradicted**" in R.findings(frame(*runs), "mini")


def test_conclusions_are_counted_for_each_data_set_and_holm_is_named_where_it_differs():
    runs = [made_up(cell, seed, "fer2013plus") for cell in ("baseline", "mixcut") for seed in (0, 1)]
    row = R.judged(frame(*runs), "fer2013plus").iloc[0]
    rows = pd.DataFrame([{**row, "on": on, "verdict": verdict, "with Holm": holm} for on, verdict, holm in [
        ("FER2013Plus", "supported", "inconclusive"), ("FER2013Plus", "contradicted", "contradicted"),
        ("RAF-DB", "inconclusive", "inconclusive"), ("RAF-DB", None, None)]])
    told = R.conclude(rows)
    assert told[0] == "**Conclusions supported on FER2013Plus: 1 of 2.**" and len(told) == 6
    assert told[3] == "**Conclusions supported on RAF-DB: none of 1.**"
    assert "**supported** (with Holm's correction inconclusive)" in told[1] and "Holm" not in told[2]
    assert "No verdict yet" in told[5]


def test_a_dash_in_a_class_name_loses_no_sentence():
    runs = [made_up(cell, seed, "fer2013plus") for cell in ("baseline", "mixcut") for seed in (0, 1)]
    for run in runs:
        run.metrics["classes"] = [f"{name} — very" for name in run.metrics["classes"]]
        if run.metrics["cell"] == "mixcut":
            run.measured.probabilities[:] = np.eye(4)[(run.labels + 1) % 4]
    assert " — very (recall 0.00 instead of " in R.findings(frame(*runs), "mini")


def test_a_view_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="must be one of"):
        R.correct(frame(made_up("mixcut", 0)), "all images")


def test_names_are_escaped(tmp_path):
    skipped = pd.DataFrame({"folder": ["<img src=x onerror=alert(1)>"], "reason": ["a | b & 5 % <i>"]})
    R.write({"Left out": [R.Item("skipped", "Left out", "", skipped)]}, "", tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<img" not in html and "<i>" not in html and "&lt;img" in html and "<script" not in html
    assert r"a \| b &amp; 5 %" in (tmp_path / "tables/skipped.md").read_text()


def test_the_page_stands_alone(several, tmp_path):
    """Every item is linked, every figure is in the page and has a text, and nothing is fetched."""
    found, skipped = R.load_runs(several, "demo")
    R.write(R.contents(found, skipped, "demo"), R.findings(found, "demo"), tmp_path)
    html = (tmp_path / "report.html").read_text()
    links = re.findall(r'href="#([^"]+)"', html)
    assert set(re.findall(r'<a id="([^"]+)"', html)) <= set(links)
    figures = re.findall(r'<img src="data:image/svg[^"]+" alt="[^"]+"', html)
    assert len(figures) == len(FIGURES_WRITTEN) == html.count("<img")
    assert not re.search(r'(src|href)="?(https?:)?//', html) and "color-scheme: light dark" in html


def test_the_notebook(several, tmp_path):
    out = tmp_path / "report"
    given = {"runs": str(several), "out": str(out), "profile": "demo"}
    papermill.execute_notebook(ROOT / "nbs/report.ipynb", tmp_path / "out.ipynb", given, progress_bar=False,
                               cwd=tmp_path)
    assert written(out) == PROMISED
    assert "No runs yet on drawn faces in colour." in (out / "report.html").read_text()
    assert str(tmp_path) not in (out / "report.html").read_text()
    outputs = [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type in ("stream", "error")]


def test_the_notebook_is_thin():
    cells = nbformat.read(ROOT / "nbs/report.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "def " not in code and "import pandas" not in code
    assert [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
