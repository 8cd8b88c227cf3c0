"""mixcut.data on miniatures of every layout, on every bad input that it names, and, where MIXCUT_FERPLUS and
MIXCUT_FERPLUS_VOTES point at them, on the real files."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from mixcut import data as D
from mixcut import layouts as L
from mixcut import miniatures as M
from mixcut.data import DataError, DataWarning, Split, load

pytestmark = pytest.mark.filterwarnings(
    "error", "ignore::mixcut.data.DataWarning", "ignore:.*CUDA.*",
    # of libraries to come
    "ignore::DeprecationWarning", "ignore::PendingDeprecationWarning", "ignore::FutureWarning",
)

USAGE = ["Training"] * 12 + ["PublicTest"] * 4 + ["PrivateTest"] * 4


@pytest.fixture(scope="module")
def faces():
    images = torch.randint(
        0, 256, (20, 1, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    votes = torch.zeros(20, 10, dtype=torch.int64)
    votes[torch.arange(20), torch.arange(20) % 10] = 10  # rows 8, 9, 18 and 19 are unknown or NF
    return images, votes


@pytest.fixture
def csv_root(tmp_path, faces):
    M.write_fer_csv(tmp_path / "csv", *faces, USAGE)
    return tmp_path / "csv"


@pytest.fixture
def fer_root(tmp_path, faces):
    M.write_fer_folders(tmp_path / "folders", *faces, USAGE)
    return tmp_path / "folders"


@pytest.fixture
def raf_root(tmp_path):
    images = torch.randint(
        0, 256, (14, 3, 100, 100), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    M.write_rafdb(tmp_path / "raf", images, torch.arange(14) % 7, ["train"] * 9 + ["test"] * 5)
    M.write_rafdb(
        tmp_path / "mirror", images, torch.arange(14) % 7, ["train"] * 9 + ["test"] * 5, mirror=True
    )
    return tmp_path / "raf"


@pytest.fixture
def own_root(tmp_path):
    pixels = np.random.default_rng(0)
    for part, count in {"train": 4, "val": 2, "test": 2}.items():
        for name in ("sad", "happy"):
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels.integers(0, 256, (50 + 7 * i, 64), dtype=np.uint8)).save(
                    folder / f"{i}.png"
                )
    return tmp_path / "own"


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def edit_line(path, number, new):
    lines = path.read_text().splitlines()
    lines[number - 1] = new
    path.write_text("\n".join(lines) + "\n")


def refuses(*parts, name="fer2013plus", root=None, **options):
    with pytest.raises(DataError) as caught:
        load(name, root, **options)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# the split


@pytest.mark.parametrize(
    "images, labels, classes, says",
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "ab", "uint8"),
        (
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            torch.zeros(2, dtype=torch.int64),
            "ab",
            "[N, 1 or 3, H, W]",
        ),
        (torch.zeros(2, 2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "ab", "1 or 3"),
        (np.zeros((2, 1, 4, 4), np.uint8), torch.zeros(2, dtype=torch.int64), "ab", "uint8 tensor"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "ab", "int64"),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            "ab",
            "2 images but 3 labels",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "ab", "0 to 2"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), "ab", "-1 to 0"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0]), "aa", "different names"),
    ],
)
def test_split_checks_itself(images, labels, classes, says):
    with pytest.raises(DataError) as caught:
        Split(images, labels, tuple(classes))
    assert says in str(caught.value)


def test_split_behaves_like_a_sequence_of_images(faces):
    split = Split(faces[0], torch.arange(20) % 8, D.EXPRESSIONS)
    assert len(split) == 20 and split.counts()["neutral"] == 3 and sum(split.counts().values()) == 20
    assert torch.equal(split[torch.tensor([3, 1])].images, faces[0][[3, 1]]) and split[
        5:7
    ].labels.tolist() == [5, 6]
    assert len(split[split.labels == 0]) == 3 and len(split[:0]) == 0
    assert "20 images of 1 × 48 × 48" in repr(split)


def test_fingerprint_sees_pixels_labels_and_classes(faces):
    images, labels = faces[0], torch.arange(20) % 8
    base = Split(images, labels, D.EXPRESSIONS).fingerprint()
    other = images.clone()
    other[3, 0, 2, 1] ^= 1
    assert len(base) == 16 and base == Split(images.clone(), labels.clone(), D.EXPRESSIONS).fingerprint()
    assert base != Split(other, labels, D.EXPRESSIONS).fingerprint()
    assert base != Split(images, labels.flip(0), D.EXPRESSIONS).fingerprint()
    assert base != Split(images, labels, D.EXPRESSIONS[::-1]).fingerprint()


# votes


def test_the_largest_column_wins_and_the_first_of_equals():
    votes = np.eye(10, dtype=int) * 5
    labels, keep = D.majority(votes)
    assert labels.tolist() == list(range(10)) and keep.tolist() == [True] * 8 + [False] * 2
    for first in range(10):
        for second in range(first + 1, 10):
            votes = torch.zeros(1, 10, dtype=torch.int64)
            votes[0, [first, second]] = 5
            assert D.majority(votes)[0].item() == first


def test_majority_refuses_another_table():
    with pytest.raises(DataError, match="contempt"):
        D.majority(torch.zeros(3, 8))


@pytest.mark.parametrize("vote", ["4.5", "-1", "x", "", "nan", "inf"])
def test_a_bad_vote_is_named(csv_root, vote):
    edit_line(csv_root / "fer2013new.csv", 4, f"Training,fer0000002.png,{vote},0,10,0,0,0,0,0,0,0")
    refuses("fer2013new.csv, line 4", "whole numbers", root=csv_root)


def test_a_face_without_any_vote_is_refused_and_a_float_column_is_not(csv_root):
    edit_line(csv_root / "fer2013new.csv", 4, "Training,fer0000002.png,0.0,0,10.0,0,0,0,0,0,0,0")
    assert load("fer2013plus", csv_root).train.labels[2] == 2
    edit_line(csv_root / "fer2013new.csv", 4, "Training,fer0000002.png" + ",0" * 10)
    refuses("line 4", "not all zero", root=csv_root)


# CSV layouts


@pytest.mark.parametrize("icml", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_csv_layouts(tmp_path, faces, icml, nested):
    M.write_fer_csv(tmp_path / "x" / "fer2013", *faces, USAGE, icml=icml)
    got = load("fer2013plus", tmp_path / "x" if nested else tmp_path / "x" / "fer2013")
    assert [len(split) for split in got.splits.values()] == [10, 4, 2]
    assert torch.equal(got.train.images, faces[0][[*range(8), 10, 11]]) and got.train.labels.tolist() == [
        *range(8),
        0,
        1,
    ]
    assert torch.equal(got.test.images, faces[0][16:18]) and got.classes == D.EXPRESSIONS
    assert "row by row" in got.found.rule and got.found.checksum == got.fingerprint


def test_a_byte_order_mark_and_blank_lines_do_no_harm(csv_root):
    before = load("fer2013plus", csv_root).fingerprint
    for name in ("fer2013.csv", "fer2013new.csv"):
        text = (csv_root / name).read_text()
        (csv_root / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    assert load("fer2013plus", csv_root).fingerprint == before


def test_counts_other_than_the_papers_are_warned_of(csv_root):
    with pytest.warns(DataWarning, match=r"train: total 10 \(paper 28,389\); valid: total 4 \(paper 3,553\)"):
        got = load("fer2013plus", csv_root)
    table = got.summary()
    assert table.loc["total"].tolist() == [10, 4, 2, 28389, 3553, 3546] and table.loc["neutral", "train"] == 2


@pytest.mark.parametrize(
    "file, old, new, says",
    [
        ("fer2013.csv", "pixels", "pixel", ("fer2013.csv: no column pixels", "emotion, pixel, Usage")),
        ("fer2013.csv", "Usage", "split", ("no column Usage",)),
        ("fer2013new.csv", "contempt", "scorn", ("fer2013new.csv: no column contempt", "scorn")),
        ("fer2013new.csv", "Image name", "name", ("no column Image name",)),
        ("fer2013.csv", "PublicTest", "PrivateTest", ("fer2013.csv, line 14", "row by row")),
        ("fer2013.csv", "PublicTest", "Public", ("fer2013.csv, line 14", "'Public'")),
        ("fer2013new.csv", "Training,fer0000005", "Train,fer0000005", ("fer2013new.csv, line 7", "'Train'")),
        (
            "fer2013new.csv",
            "Training,fer0000005",
            "fer0000005",
            ("fer2013new.csv, line 7", "11 cells, not 12"),
        ),
    ],
)
def test_a_changed_csv_is_named(csv_root, file, old, new, says):
    edit(csv_root / file, old, new)
    refuses(*says, root=csv_root)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda cell: cell.rsplit(" ", 1)[0], "2,303 pixels"),
        (lambda cell: cell + " 1", "2,305 pixels"),
        (lambda cell: "", "0 pixels"),
        (lambda cell: "256" + cell[cell.index(" ") :], "from 0 to 256, not 2,304"),
        (lambda cell: "-1" + cell[cell.index(" ") :], "from -1 to 2"),
        (lambda cell: "1.5" + cell[cell.index(" ") :], "not all pixels are whole numbers"),
        (lambda cell: "x" + cell[cell.index(" ") :], "not all pixels are whole numbers"),
    ],
)
def test_a_bad_pixel_row_is_named(csv_root, change, says):
    emotion, cell, usage = (csv_root / "fer2013.csv").read_text().splitlines()[5].split(",")
    edit_line(csv_root / "fer2013.csv", 6, ",".join([emotion, change(cell), usage]))
    refuses("fer2013.csv, line 6", says, root=csv_root)


def test_pixels_and_votes_of_different_length(csv_root):
    lines = (csv_root / "fer2013new.csv").read_text().splitlines()
    (csv_root / "fer2013new.csv").write_text("\n".join(lines[:-1]) + "\n")
    refuses("fer2013.csv: 20 rows of pixels, but 19 of votes", root=csv_root)
    (csv_root / "fer2013new.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    refuses("20 rows of pixels, but 21 of votes", root=csv_root)
    (csv_root / "fer2013new.csv").write_text(lines[0] + "\n")
    refuses("fer2013new.csv is empty", root=csv_root)


@pytest.mark.parametrize("file", ["fer2013.csv", "fer2013new.csv"])
def test_a_file_that_is_not_utf8_or_empty(csv_root, file):
    content = (csv_root / file).read_bytes()
    (csv_root / file).write_bytes(content[:40].replace(b"e", b"\xe9") + content[40:])
    refuses(file, "UTF-8", root=csv_root)
    (csv_root / file).write_bytes(b"")
    refuses(file, "no column", "there are none", root=csv_root)


# folders


def test_folders_give_what_csv_gives(csv_root, fer_root):
    got = load("fer2013plus", fer_root)
    assert got.fingerprint == load("fer2013plus", csv_root).fingerprint
    assert "label.csv" in got.found.rule and got.found.layout == "FER+ folders"


def test_folders_one_level_down_without_test(fer_root):
    shutil.rmtree(fer_root / "FER2013Test")
    (fer_root / "data").mkdir()
    for name in ("FER2013Train", "FER2013Valid"):
        (fer_root / name).rename(fer_root / "data" / name)
    with pytest.warns(DataWarning, match="test: missing"):
        assert load("fer2013plus", fer_root).test is None


def test_published_votes_in_the_root_are_used_by_name(fer_root, faces):
    votes = faces[1].roll(1, 1)
    M.write_votes(fer_root / "fer2013new.csv", votes, USAGE)
    got = load("fer2013plus", fer_root)
    labels, keep = D.majority(votes[:12])
    assert torch.equal(got.train.labels, labels[keep]) and "fer2013new.csv, by image name" in got.found.rule


def test_an_image_has_the_votes_of_its_own_row(fer_root, faces):
    """As in the real file: a row is given another row's name, with other votes, above or below that row;
    its own image was never written."""
    for stranger, owner in [(1, 7), (10, 4)]:
        names = [f"fer{i:07d}.png" for i in range(20)]
        names[stranger] = names[owner]
        M.write_votes(fer_root / "fer2013new.csv", faces[1], USAGE, names)
        path = fer_root / "FER2013Train" / f"fer{stranger:07d}.png"
        path.rename(fer_root / "away.png")
        got = load("fer2013plus", fer_root)
        (fer_root / "away.png").rename(path)
        there = [i for i in range(12) if i not in (stranger, 8, 9)]
        assert torch.equal(got.train.images, faces[0][there]) and got.train.labels.tolist() == [
            i % 10 for i in there
        ]


def test_a_name_that_stands_twice_in_label_csv_too(fer_root):
    path = fer_root / "FER2013Train" / "label.csv"
    before = load("fer2013plus", fer_root).fingerprint
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[7].rsplit(",", 10)[0] + ",9" + ",0" * 9, *lines[3:]]) + "\n")
    assert load("fer2013plus", fer_root).fingerprint == before


def test_rows_without_a_name_have_no_image(fer_root, faces):
    names = [f"fer{i:07d}.png" for i in range(20)]
    names[2] = ""
    M.write_votes(fer_root / "fer2013new.csv", faces[1], USAGE, names)
    got = load("fer2013plus", fer_root)
    assert len(got.train) == 9 and any(
        "FER2013Train/*.png: 1 left out" in note for note in got.found.notes
    )


def test_a_listed_image_that_is_missing(fer_root):
    (fer_root / "FER2013Train" / "fer0000003.png").unlink()
    refuses("fer0000003.png has votes, but is not in the train folder", root=fer_root)


def test_an_image_without_votes_is_counted(fer_root):
    shutil.copy(fer_root / "FER2013Train" / "fer0000003.png", fer_root / "FER2013Train" / "extra.png")
    assert (
        "folders/FER2013Train/*.png: 1 left out (not PNG files with votes)"
        in load("fer2013plus", fer_root).found.notes
    )


def test_an_image_in_the_wrong_folder(fer_root, faces):
    M.write_votes(fer_root / "fer2013new.csv", faces[1], USAGE)
    (fer_root / "FER2013Train" / "fer0000003.png").rename(fer_root / "FER2013Valid" / "fer0000003.png")
    refuses("fer0000003.png has votes, but is not in the train folder", root=fer_root)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "half"])
def test_a_corrupt_image_is_named(fer_root, content):
    path = fer_root / "FER2013Train" / "fer0000003.png"
    path.write_bytes(path.read_bytes()[:900] if content == "half" else content)
    refuses("FER2013Train/fer0000003.png", "cannot be decoded", root=fer_root)


def test_an_image_of_another_size_is_named(fer_root):
    Image.new("L", (48, 47)).save(fer_root / "FER2013Valid" / "fer0000012.png")
    refuses("FER2013Valid/fer0000012.png", "48 × 47", root=fer_root)


@pytest.mark.parametrize(
    "line, says",
    [
        ("fer0000002.png,1,2,3", "4 cells, not 12"),
        ("fer0000002.png" + ",1" * 10, "11 cells, not 12"),
        ('fer0000002.png,"(0, 0, 48, 48)"' + ",x" * 10, "whole numbers"),
    ],
)
def test_a_malformed_line_of_label_csv(fer_root, line, says):
    edit_line(fer_root / "FER2013Train" / "label.csv", 3, line)
    refuses("FER2013Train/label.csv, line 3", says, root=fer_root)


def test_no_votes_at_all(fer_root):
    (fer_root / "FER2013Valid" / "label.csv").write_text("")
    refuses("FER2013Valid/label.csv is empty", root=fer_root)
    (fer_root / "FER2013Valid" / "label.csv").unlink()
    refuses("no votes for the valid images. Put fer2013new.csv", root=fer_root)


# roots


def test_roots(tmp_path, csv_root):
    for name in ("fer2013plus", "rafdb", "folder"):
        first_line = D.RECIPES[name].splitlines()[0]
        refuses("needs its unpacked folder", first_line, name=name)
        refuses("nowhere is not a folder", first_line, name=name, root=tmp_path / "nowhere")
        (tmp_path / "empty").mkdir(exist_ok=True)
        refuses(first_line, name=name, root=tmp_path / "empty")
        file = csv_root / "fer2013.csv"
        refuses("fer2013.csv is not a folder", "unpacked", first_line, name=name, root=file)
    (csv_root / "fer2013.csv").rename(csv_root / "fer2013")  # as some programs unpack it
    refuses("no fer2013.csv with", "/csv, which holds fer2013, fer2013new.csv.", root=csv_root)
    (csv_root / "fer2013new.csv").unlink()
    refuses("no basic/EmoLabel", D.RECIPES["rafdb"][:40], name="rafdb", root=csv_root)


def test_two_candidates_are_no_choice(csv_root):
    shutil.copytree(csv_root, csv_root.parent / "csv2")
    refuses("/csv and in ", "/csv2. Choose one of them as root", root=csv_root.parent)


def test_names_and_options(own_root):
    refuses("unknown data set 'fer2013plsu'", "fer2013plus", "drawn-rgb", name="fer2013plsu")
    refuses("unknown option of drawn 'trian'", "Known: seed, train", name="drawn", trian=3)
    refuses("Known: none", name="rafdb", root=own_root, size=3)
    for name, options, says in [
        ("drawn", [{"train": n} for n in (0, -1, True, "many", 2.5, None)], "a whole number from 1 up"),
        ("drawn", [{"seed": n} for n in (-1, "x", 2.5, None, 2**63)], "a whole number from 0 up"),
        ("folder", [{"size": n} for n in (0, "48", 48.0, True)], "a whole number from 1 up"),
        ("folder", [{"channels": n} for n in (2, "3", True, 3.0)], "1, 3 or None"),
        ("folder", [{"skip_corrupt": n} for n in ("no", 1, None)], "True or False"),
    ]:
        for option in options:
            refuses(f"{min(option)} must be {says}", name=name, root=own_root, **option)
    refuses("channels must be", name="folder", root=own_root, channels=2)
    assert {name for name in D.KINDS if not name.startswith("drawn")} == set(D.RECIPES) == set(L.READERS)


# RAF-DB


def test_raf_layouts(raf_root):
    root = raf_root.parent
    official = load("rafdb", raf_root)
    for other in (raf_root / "basic", root / "mirror", root / "mirror" / "DATASET"):
        assert load("rafdb", other).fingerprint == official.fingerprint
    shutil.rmtree(raf_root)
    assert load("rafdb", root).fingerprint == official.fingerprint  # the mirror, one folder down
    assert official.valid is None and official.classes[0] == "surprise" and official.classes[6] == "neutral"
    assert official.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1] and official.train.images.shape == (
        9,
        3,
        100,
        100,
    )


def test_raf_counts_are_compared_class_by_class(raf_root):
    with pytest.warns(DataWarning, match=r"train: total 9 \(paper 12,271\)"):
        table = load("rafdb", raf_root).summary()
    assert table.loc["happiness"].tolist() == [1, 1, 4772, 1185]
    counts = [1290, 281, 717, 4772, 1982, 705, 2524]
    labels = torch.repeat_interleave(torch.arange(7), torch.tensor(counts))
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(12271, 3, 1, 1)
    exact = {"train": Split(images, labels, official_classes := D.DATASETS["rafdb"].classes)}
    assert D.differences("rafdb", exact) == ["test: missing"]
    assert D.differences("rafdb", exact | {"valid": exact["train"]})[1] == "valid: the paper has none"
    swapped = {
        "train": Split(images, torch.cat([torch.zeros(1, dtype=torch.int64), labels[:-1]]), official_classes)
    }
    assert D.differences("rafdb", swapped) == [
        "test: missing",
        "train: surprise 1,291 (paper 1,290), neutral 2,523 (paper 2,524)",
    ]


@pytest.mark.parametrize(
    "line, says",
    [
        *(
            (line, f"{line} is not a name and a label from 1 to 7")
            for line in (
                "train_00003.jpg 0",
                "train_00003.jpg 12",
                "train_00003.jpg -1",
                "train_00003.jpg five",
                "train_00003.png 5",
            )
        ),
        ("train_00003.jpg", "1 cells, not 2"),
        ("train_00002.jpg 2", "train_00002.jpg is listed twice"),
    ],
)
def test_a_bad_line_of_the_raf_list(raf_root, line, says):
    edit_line(raf_root / "basic" / L.RAF_LIST, 3, line)
    refuses("EmoLabel/list_patition_label.txt, line 3", says, name="rafdb", root=raf_root)


def test_the_compound_list_is_refused(raf_root):
    shutil.copytree(raf_root / "basic", raf_root / "compound")
    listing = raf_root / "compound" / L.RAF_LIST
    edit_line(listing, 3, "train_00003.jpg 11")
    load("rafdb", raf_root)  # both there: the basic one
    refuses(
        "line 3",
        "train_00003.jpg 11",
        "compound list: use basic/EmoLabel",
        name="rafdb",
        root=raf_root / "compound",
    )
    shutil.rmtree(raf_root / "basic")
    refuses("compound list", name="rafdb", root=raf_root)


def test_raf_images(raf_root):
    aligned = raf_root / "basic" / "Image" / "aligned"
    shutil.copy(aligned / "train_00001_aligned.jpg", aligned / "train_99999_aligned.jpg")
    assert "Image/aligned/*.jpg: 1 left out (not in the list)" in load("rafdb", raf_root).found.notes
    Image.new("RGB", (100, 99)).save(aligned / "train_00002_aligned.jpg")
    refuses("aligned/train_00002_aligned.jpg", "100 × 99", name="rafdb", root=raf_root)
    (aligned / "train_00002_aligned.jpg").write_bytes(
        (aligned / "train_00001_aligned.jpg").read_bytes()[:700]
    )
    refuses("aligned/train_00002_aligned.jpg", "cannot be decoded", name="rafdb", root=raf_root)
    (aligned / "train_00002_aligned.jpg").unlink()
    refuses(
        "list_patition_label.txt, line 2: train_00002.jpg is not in Image/aligned",
        name="rafdb",
        root=raf_root,
    )
    shutil.rmtree(aligned)
    refuses("line 1: train_00001.jpg is not in Image/aligned", name="rafdb", root=raf_root)


def test_raf_list_that_is_not_text(raf_root):
    listing = raf_root / "basic" / L.RAF_LIST
    listing.write_bytes(b"\xff\xfe" + listing.read_bytes())
    refuses("UTF-8", name="rafdb", root=raf_root)
    listing.write_text("\n")
    refuses("is empty", name="rafdb", root=raf_root)


def test_the_mirror_has_classes_1_to_7(raf_root):
    root = raf_root.parent / "mirror"
    shutil.copytree(root / "DATASET/train/1", root / "DATASET/train/8")
    refuses("no class folders train/1 to train/7 only", name="rafdb", root=root)


# any folder


def test_a_tree_of_grey_images(own_root):
    got = load("folder", own_root, size=32)
    assert got.classes == ("happy", "sad") and [len(split) for split in got.splits.values()] == [8, 4, 4]
    assert got.train.images.shape == (8, 1, 32, 32) and got.train.labels.tolist() == [0] * 4 + [1] * 4
    assert load("folder", own_root, size=32, channels=3).train.images.shape == (8, 3, 32, 32)
    assert load("folder", own_root.parent, size=32).fingerprint == got.fingerprint
    shutil.rmtree(own_root / "test")
    assert load("folder", own_root).test is None


def test_modes_and_sizes(own_root):
    folder = own_root / "train" / "sad"
    ramp = np.tile(np.arange(96, dtype=np.uint8), (48, 1))
    Image.fromarray(ramp.astype(np.uint16) * 257).save(folder / "a16.png")
    Image.fromarray(ramp).convert("LA").save(folder / "ala.png")
    got = load("folder", own_root)
    assert got.train.images.shape[1] == 1
    assert torch.equal(
        got.train.images[-2:], torch.from_numpy(ramp[:, 24:72]).expand(2, 1, 48, 48)
    )  # the middle, untouched
    Image.new("P", (60, 60)).save(folder / "p.png", transparency=0)
    Image.new("RGBA", (60, 50), (200, 100, 50, 128)).save(folder / "rgba.png")
    Image.new("CMYK", (60, 50)).save(folder / "cmyk.JPG", format="JPEG")
    got = load("folder", own_root)
    assert got.train.images.shape == (13, 3, 48, 48)


def test_a_photograph_is_turned_upright(own_root):
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(own_root / "train" / "sad" / "z.jpg", exif=exif)
    got = load("folder", own_root).train.images[-1].float()
    assert got[:, :20].mean() < 10 and got[:, 28:].mean() > 245


def test_a_corrupt_image_is_named_or_skipped(own_root):
    path = own_root / "train" / "happy" / "1.png"
    path.write_bytes(path.read_bytes()[:600])
    refuses("happy/1.png", "cannot be decoded", name="folder", root=own_root)
    got = load("folder", own_root, skip_corrupt=True)
    assert len(got.train) == 7 and got.train.labels.tolist() == [0] * 3 + [1] * 4
    skipped, copies = got.found.notes
    assert "happy/1.png" in skipped and copies == "copies: no image is pixel for pixel in two splits"


def test_classes_must_be_there_and_filled(own_root):
    (own_root / "train" / ".ipynb_checkpoints").mkdir()
    load("folder", own_root)
    (own_root / "test").rename(own_root / "tset")
    load("folder", own_root)  # with a note; an empty folder of a split's name is no such note
    (own_root / "test" / "sad").mkdir(parents=True)
    refuses("own/test: an empty split", name="folder", root=own_root)
    shutil.rmtree(own_root / "test")
    (own_root / "tset").rename(own_root / "test")
    shutil.copytree(own_root / "test" / "sad", own_root / "test" / "angry")
    refuses("train/angry: no usable image", "from every split", name="folder", root=own_root)
    shutil.rmtree(own_root / "test" / "angry")
    for path in (own_root / "val" / "sad").iterdir():
        path.unlink()
    (own_root / "val" / "sad" / "notes.txt").write_text("x")
    refuses("valid/sad: no usable image", name="folder", root=own_root)
    shutil.copytree(own_root / "train", own_root / "valid")
    refuses("look like splits: test, train, val, valid", name="folder", root=own_root)


def test_a_flat_folder_is_split_by_a_seed(own_root):
    root = own_root.parent / "flat"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (48, 48), 12 * i).save(root / name / f"{i:02d}.png")
    got = load("folder", root)
    assert [list(split.counts().values()) for split in got.splits.values()] == [[16, 16], [2, 2], [2, 2]]
    values = torch.cat([split.images[:, 0, 0, 0][split.labels == 0] for split in got.splits.values()])
    assert sorted(values.tolist()) == [12 * i for i in range(20)]  # nobody twice, nobody lost
    assert "seed 0" in got.found.rule and got.fingerprint == load("folder", root).fingerprint
    assert got.fingerprint != load("folder", root, seed=1).fingerprint
    for i in range(2, 20):
        (root / "a" / f"{i:02d}.png").unlink()
    refuses("class a has 2 usable images", name="folder", root=root)
    shutil.rmtree(root / "b")
    refuses("class folders", name="folder", root=root)


# drawn faces


def test_drawn_faces_need_nothing():
    got = load("drawn", train=12, valid=8, test=8)
    assert (
        got.classes == D.EXPRESSIONS
        and got.train.images.shape[1:] == (1, 48, 48)
        and 8 <= len(got.train) <= 12
    )
    assert got.fingerprint == load("drawn", train=12, valid=8, test=8).fingerprint
    assert got.fingerprint != load("drawn", train=12, valid=8, test=8, seed=1).fingerprint
    alone = load("drawn", train=12, valid=0, test=8)
    assert alone.valid is None and alone.test.fingerprint() == got.test.fingerprint()
    same = load("drawn", train=8, valid=8, test=0)
    assert same.train.fingerprint() != same.valid.fingerprint()


def test_drawn_rgb_has_rafs_shape():
    got = load("drawn-rgb", train=8, test=4)
    assert (
        got.classes == D.DATASETS["rafdb"].classes
        and got.train.images.shape[1:] == (3, 100, 100)
        and got.valid is None
    )
    images, votes = D.drawn_faces(8, D.split_seed(0, "train"), size=100, channels=3)
    names = [D.VOTES[i] for i in votes.argmax(1)]
    assert [got.classes[i] for i in got.train.labels] == [name for name in names if name in got.classes]


# where the labels come from, and copies


def warned(name, root, **options):
    """A data set, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = load(name, root, **options)
    return got, [str(one.message) for one in caught]


def test_every_layout_says_where_its_labels_come_from(
    csv_root, fer_root, raf_root, own_root, faces, tmp_path
):
    M.write_fer_csv(tmp_path / "icml", *faces, USAGE, icml=True)
    M.write_fer_folders(tmp_path / "voted", *faces, USAGE)
    M.write_votes(tmp_path / "voted" / "fer2013new.csv", faces[1], USAGE)
    expected = {
        ("fer2013plus", csv_root): "fer2013new.csv",
        ("fer2013plus", tmp_path / "icml"): "fer2013new.csv",
        ("fer2013plus", tmp_path / "voted"): "fer2013new.csv",
        ("fer2013plus", fer_root): "label.csv",
        ("rafdb", raf_root): "list_patition_label.txt",
        ("rafdb", raf_root.parent / "mirror"): "the folders' names",
        ("folder", own_root): "the folders' names",
    }
    for (name, root), source in expected.items():
        got, said = warned(name, root)
        assert got.found.label_source == source and f"label source {source}" in str(got.found)
        assert any("fer2013new.csv is missing" in text for text in said) == (
            source == "label.csv"
        )
    for name, few in (("drawn", {"train": 4, "valid": 0, "test": 2}), ("drawn-rgb", {"train": 4, "test": 2})):
        assert load(name, **few).found.label_source == "mixcut.faces"


def test_older_votes_are_warned_of_with_what_they_may_cost(fer_root):
    got, said = warned("fer2013plus", fer_root)
    [text] = [text for text in said if "label.csv" in text]
    assert "181 train, 36 valid and 46 test labels" in text and "Add the published" in text
    assert got.found.label_source == "label.csv" and any("label.csv" in note for note in got.found.notes)


def planted(images):
    """Of 20 faces (12, 4 and 4 in the splits; rows 8, 9, 18 and 19 are dropped): two copies of training
    images, one of a validation image."""
    images = images.clone()
    images[12], images[16], images[17] = images[0], images[1], images[13]
    images[14] = images[2]
    images[14, 0, 20, 20] ^= 1  # one pixel of one grey level: another image
    images[15] = images[8]  # of an image that is in no split
    return images


def counted(data):
    return {pair: int(mask.sum()) for pair, mask in D.find_copies(data.splits).items()}


@pytest.mark.parametrize("write", [M.write_fer_csv, M.write_fer_folders])
def test_copies_between_every_two_splits_of_faces(tmp_path, faces, write):
    write(tmp_path / "faces", planted(faces[0]), faces[1], USAGE)
    got = load("fer2013plus", tmp_path / "faces")
    assert counted(got) == {("valid", "train"): 1, ("test", "train"): 1, ("test", "valid"): 1}
    assert got.copies["valid"].tolist() == [True, False, False, False] and got.copies["test"].tolist() == [
        True,
        False,
    ]
    assert set(got.copies) == {"valid", "test"} and all(
        mask.dtype == torch.bool for mask in got.copies.values()
    )
    assert got.found.notes[-3:] == [
        "copies: 1 of 4 valid images are pixel for pixel in train",
        "copies: 1 of 2 test images are pixel for pixel in train",
        "copies: 1 of 2 test images are pixel for pixel in valid",
    ]


@pytest.mark.parametrize("mirror", [False, True], ids=["official tree", "mirror"])
def test_copies_in_rafdb(tmp_path, mirror):
    images = torch.randint(
        0, 256, (14, 3, 100, 100), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    images[[9, 12]] = images[[0, 3]]
    images[10] = 255 - images[1]
    M.write_rafdb(tmp_path, images, torch.arange(14) % 7, ["train"] * 9 + ["test"] * 5, mirror=mirror)
    got = load("rafdb", tmp_path)
    assert counted(got) == {("test", "train"): 2} and sum(mask.sum() for mask in got.copies.values()) == 2
    assert got.found.notes[-1] == "copies: 2 of 5 test images are pixel for pixel in train"


@pytest.mark.parametrize("channels, size", [(1, 48), (3, 48), (1, 33), (3, 70)])
def test_copies_in_folders_of_images(own_root, channels, size):
    """A copy has the same pixels, whatever its name and its class; in grey as in colour, at any size."""
    train, val, test = (own_root / name for name in ("train", "val", "test"))
    shutil.copy(train / "sad" / "0.png", val / "sad" / "1.png")
    shutil.copy(train / "sad" / "3.png", test / "happy" / "0.png")  # another class
    shutil.copy(val / "happy" / "0.png", test / "happy" / "1.png")
    image = np.array(Image.open(train / "happy" / "2.png"))
    Image.fromarray(image).save(test / "sad" / "0.png", compress_level=0)  # other bytes, the same pixels
    image[30, 32] ^= 128
    Image.fromarray(image).save(test / "sad" / "1.png")
    got = load("folder", own_root, channels=channels, size=size)
    assert got.train.images.shape[1:] == (channels, size, size)
    assert counted(got) == {("valid", "train"): 1, ("test", "train"): 2, ("test", "valid"): 1}
    assert got.copies["test"].tolist() == [True, False, True, False]


def test_faces_that_are_drawn_are_in_one_split(tmp_path):
    for name in ("drawn", "drawn-rgb"):
        got = load(name, train=60, test=30, **({"valid": 30} if name == "drawn" else {}))
        assert not any(mask.any() for mask in D.find_copies(got.splits).values())
        assert got.found.notes[-1] == "copies: no image is pixel for pixel in two splits"
    assert load("drawn", train=6, valid=0, test=0).copies == {}


def test_a_grey_image_and_its_three_channels_are_not_mixed_up():
    grey = torch.randint(
        0, 256, (4, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    colour = grey.expand(-1, 3, -1, -1)  # not contiguous
    labels = torch.zeros(4, dtype=torch.int64)

    def copies(train, test):
        train, test = (Split(images, labels[: len(images)], ("a", "b")) for images in (train, test))
        return int(D.Dataset("folder", train, None, test, D.Found("", "")).copies["test"].sum())

    assert copies(colour, colour[1:3].contiguous()) == 2 and copies(grey, grey[1:3].flip(3).flip(3)) == 2
    assert copies(grey, grey.transpose(2, 3)) == 0 and copies(grey, colour) == 0


def test_there_is_no_cache(fer_root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load("fer2013plus", fer_root)
    assert not (tmp_path / "xdg").exists()
    for name, root in (("fer2013plus", fer_root), ("drawn", None)):
        refuses("'cache'", name=name, root=root, cache=False)


def test_digits_are_a_folder_like_any_other(tmp_path):
    pytest.importorskip("sklearn")
    for name in ("one", "two"):
        M.write_digits(tmp_path / name)
    one, two = (load("folder", tmp_path / name) for name in ("one", "two"))
    assert (
        one.fingerprint == two.fingerprint
        and one.classes == tuple("0123456789")
        and one.train.images.shape[1:] == (1, 48, 48)
    )
    assert (
        sum(len(split) for split in one.splits.values()) == 1797
        and 530 < len(one.test) < 550
        and 170 < len(one.valid) < 190
    )
    assert all(min(split.counts().values()) >= 17 for split in one.splits.values())


def test_progress_is_told(fer_root, own_root):
    told = []
    load("fer2013plus", fer_root, progress=lambda *step: told.append(step))
    assert told[-1] == (16, 16, "reading images")
    load("folder", own_root, progress=lambda *step: told.append(step))
    assert told[-1] == (16, 16, "reading images")
    load("drawn", train=5, valid=5, test=5, progress=lambda *step: told.append(step))
    assert told[-1] == (15, 15, "drawing faces") and (5, 15, "drawing faces") in told


# folders as people have them


def tree(root, *folders, ends=("png",), count=4):
    pixels = np.random.default_rng(1)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels.integers(0, 256, (48, 48), dtype=np.uint8)).save(
                root / folder / f"{i}.{ends[i % len(ends)]}", format="PNG"
            )
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "PublicTest", "PrivateTest"),
        ("TRAIN", "Val", "TEST"),
        ("train_class", "val_class", "test_class"),
        ("train-set", "dev-set", "testset"),
        ("1_train", "2_validation", "3_testing"),
        ("FER2013Train", "FER2013Valid", "FER2013Test"),
    ],
)
def test_splits_of_any_usual_name(tmp_path, names):
    got = load("folder", tree(tmp_path, *(f"{split}/{name}" for split in names for name in "ab")))
    assert {key: len(split) for key, split in got.splits.items()} == {
        "train": 8,
        "valid": 8,
        "test": 8,
    } and got.classes == ("a", "b")
    assert load("folder", tmp_path).found.warned == []


@pytest.mark.parametrize(
    "folders, says",
    [
        (("train/a", "train/b", "test_old/a", "test_old/b"), "look like splits: test_old, train"),
        (("train/a", "train/b", "eval/a", "eval/b"), "look like splits: eval, train"),
        (("a", "b", "test"), "look like splits: test"),
        (("a", "b", "Validation"), "look like splits: Validation"),
        (("Test/a", "Test/b"), "look like splits: Test"),
        (("a/Train", "a/Test", "b/Train", "b/Test"), "look like splits: a/Test, a/Train, b/Test, b/Train"),
        (("train/train", "train/val"), "class folders train, val look like splits"),
        (("Train/a", "Train/b", "training/a", "training/b"), "look like splits: Train, training"),
        (("train/a", "train/b", "test"), "test/a: no usable image in this class"),
    ],
)
def test_what_looks_like_a_split_is_one_or_an_error(tmp_path, folders, says):
    refuses(says, name="folder", root=tree(tmp_path / "x", *folders))


@pytest.mark.parametrize("folders, says", [
    (("训练/happy", "训练/sad", "测试/happy", "测试/sad"), "below the classes 测试, 训练: happy, sad"),
    (("S001/happy", "S001/sad", "S002/happy"), "below the classes S001, S002: happy, sad"),
    (("train/happy", "train/happy/thumbs", "train/sad"), "4 images lie in folders below the classes happy"),
])
def test_folders_below_the_classes_are_told(tmp_path, folders, says):
    [said] = warned("folder", tree(tmp_path / "x", *folders))[1]
    assert says in said and "choose another root or move them" in said


def test_a_network_drives_thumbnails_are_no_images(tmp_path):
    root = tree(tmp_path / "x", "train/a", "train/b", "train/a/@eaDir/1.png")
    (root / "train/a/0.png").rename(root / "train/a/@1.png")
    got, said = warned("folder", root)
    assert len(got.train) == 8 and not said


@pytest.mark.parametrize("folder", ["train/disgust", "disgust/inner", "lost+found"])
def test_an_empty_folder_beside_the_classes_is_told(tmp_path, folder):
    root = tree(tmp_path / "x", *(("train/a", "train/b") if "train" in folder else ("a", "b")))
    (root / folder).mkdir(parents=True)
    (root / "back").symlink_to(root)
    got, [said] = warned("folder", root)
    assert f"{folder.removesuffix('/inner').split('/')[-1]}: an empty folder beside the classes" in said
    assert got.classes == ("a", "b") and "back" not in said


def test_classes_that_differ_only_in_case(tmp_path):
    root = tree(tmp_path / "x", "train/Anger", "train/sad", "test/anger", "test/sad")
    refuses("Anger and anger differ only in case", name="folder", root=root)
    if not (root / "TRAIN").exists():  # a file system that knows case
        assert len(load("folder", tree(tmp_path / "y", "train/A", "train/a")).classes) == 2


def test_copies_are_warned_of_where_we_made_the_splits(tmp_path):
    root = tree(tmp_path / "x", "a", "b", count=10)
    for path in [*root.glob("*/*.png")]:
        shutil.copy(path, path.with_name(f"{path.stem} (1).png"))
    [said] = warned("folder", root)[1]
    assert "are pixel for pixel in train" in said


def test_a_jpeg_that_ends_in_zeros_is_refused(tmp_path):
    root = tree(tmp_path / "x", "train/a", "train/b")
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "train/a/half.jpg", quality=95)
    content = (root / "train/a/half.jpg").read_bytes()
    (root / "train/a/half.jpg").write_bytes(content + bytes(100))  # padding after the end is none
    assert len(load("folder", root).train) == 9
    (root / "train/a/half.jpg").write_bytes(content[:len(content) // 2] + bytes(len(content) // 2))
    refuses("a/half.jpg: cannot be decoded", "its end is empty", "skip_corrupt", name="folder", root=root)


def test_aligned_faces_unpacked_into_a_folder_of_their_name(raf_root):
    folder, before = raf_root / "basic/Image/aligned", load("rafdb", raf_root).fingerprint
    folder.rename(folder.with_name("inner"))
    folder.mkdir()
    folder.with_name("inner").rename(folder / "aligned")
    assert load("rafdb", raf_root).fingerprint == before


def test_faces_unpacked_twice_are_named(fer_root):
    shutil.copytree(fer_root / "FER2013Valid", fer_root / "FER2013Valid/FER2013Valid")
    (fer_root / "FER2013Valid/FER2013Valid/label.csv").unlink()
    refuses("in two folders of one split", root=fer_root)


def test_everything_that_is_left_out_is_said_by_class(tmp_path):
    root = tree(
        tmp_path / "x",
        "train/a",
        "train/b",
        "Test/a",
        "Test/b",
        "more/c",
        ends=("png", "JPG", "jfif", "heic"),
    )
    (root / "train" / "list.csv").write_text("x")
    (root / "train" / "a" / "Thumbs.db").write_text("x")
    (root / "train" / "a" / ".hidden.png").write_text("x")
    (root / "readme").write_text("x")
    got, [said] = warned("folder", root)
    assert len(got.train) == len(got.test) == 6
    for text in (
        "more/c/*.png: 1 left out",
        "more/c/*.jfif: 1 left out",
        "/x/*: 1 left out",
        "x/train/*.csv: 1 left out",
        "train/a/*.heic: 1 left out (not images in class folders)",
        "train/a/*.db: 1 left out",
        "Test/b/*.heic: 1 left out",
    ):
        assert text in said and any(text in note for note in got.found.notes), text


def test_what_is_left_out_of_faces_is_said(fer_root, raf_root):
    (fer_root / "FER2013Train" / "extra.jpg").write_bytes(b"")
    got, said = warned("fer2013plus", fer_root)
    assert any(
        "FER2013Train/*.jpg: 1 left out (not PNG files with votes)" in text for text in said
    )
    tree(fer_root, "Test_more")
    refuses("look like splits: ", ", Test_more. Put one train", root=fer_root)
    shutil.rmtree(fer_root / "Test_more")
    tree(fer_root, "others")
    assert any("others/*.png: 4 left out" in text for text in warned("fer2013plus", fer_root)[1])
    for path in (fer_root / "FER2013Test").glob("*.png"):
        path.unlink()
    M.write_votes(fer_root / "fer2013new.csv", torch.eye(10, dtype=torch.int64)[torch.arange(20) % 10], USAGE)
    refuses("fer0000016.png has votes, but is not in the test folder", root=fer_root)
    (raf_root.parent / "mirror" / "DATASET" / "train" / "1" / "a.txt").write_text("x")
    assert any(
        "train/1/*.txt: 1 left out" in text
        for text in warned("rafdb", raf_root.parent / "mirror")[1]
    )


@pytest.mark.parametrize("end", ["JPG", "jpeg", "png"])
def test_the_mirrors_images_may_have_other_endings(raf_root, end):
    root = raf_root.parent / "mirror"
    expected = load("rafdb", root).fingerprint
    for path in root.glob("*.csv"):
        path.unlink()
    for path in (root / "DATASET" / "train").rglob("*.jpg"):
        path.rename(path.with_suffix(f".{end}"))
    assert load("rafdb", root).fingerprint == expected


def test_a_class_of_which_nothing_is_left(own_root):
    for path in (own_root / "val" / "sad").iterdir():
        path.write_bytes(b"no image")
    refuses("sad/0.png", "cannot be decoded", name="folder", root=own_root)
    refuses(
        "valid/sad: no usable image in this class",
        "from every split",
        name="folder",
        root=own_root,
        skip_corrupt=True,
    )


def test_a_split_of_which_nothing_is_left(csv_root, fer_root):
    votes = (csv_root / "fer2013new.csv").read_text().splitlines()
    votes = [
        line if not line.startswith("Private") else ",".join(line.split(",")[:2] + ["0"] * 8 + ["9", "0"])
        for line in votes
    ]
    (csv_root / "fer2013new.csv").write_text("\n".join(votes))
    refuses("no image is left in the test split", "unknown or NF", root=csv_root)
    shutil.copy(csv_root / "fer2013new.csv", fer_root)
    refuses("no image is left in the test split", root=fer_root)


# votes


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.sort_values("happiness", kind="stable"),
        lambda table: table.sample(frac=1, random_state=0),
        lambda table: table.iloc[::-1],
        lambda table: pd.concat([table.iloc[60:80], table.iloc[:60], table.iloc[80:]]),
        lambda table: table.sort_values("Image name", key=lambda names: names.str[9:]),
    ],
)
def test_votes_out_of_order_are_refused(tmp_path, change):
    images = torch.zeros(140, 1, 48, 48, dtype=torch.uint8)
    votes = torch.eye(10, dtype=torch.int64)[torch.arange(140) * 7 % 8] * 5
    M.write_fer_csv(tmp_path, images, votes, ["Training"] * 140)
    load("fer2013plus", tmp_path)
    table = change(pd.read_csv(tmp_path / "fer2013new.csv"))
    table.to_csv(tmp_path / "fer2013new.csv", index=False)
    refuses("image names are out of order", "Was the file sorted", root=tmp_path)


def test_names_without_numbers_cannot_be_checked_which_is_said(tmp_path, faces):
    M.write_fer_csv(tmp_path, *faces, USAGE)
    M.write_votes(tmp_path / "fer2013new.csv", faces[1], USAGE, [f"face-{chr(97 + i)}" for i in range(20)])
    assert any(
        "order of the votes could not be checked" in note
        for note in load("fer2013plus", tmp_path).found.notes
    )


@pytest.mark.parametrize(
    "write, says",
    [
        (lambda path, text: path.write_text(text.replace(",", ";")), "semicolons"),
        (lambda path, text: path.write_text(text.replace(",", "\t")), "tabs"),
        (lambda path, text: path.write_text(text, encoding="utf-16"), "UTF-16"),
        (lambda path, text: path.write_text(text, encoding="utf-16-le"), "UTF-16"),
    ],
)
@pytest.mark.parametrize("file", ["fer2013.csv", "fer2013new.csv"])
def test_what_spreadsheets_write_is_named(csv_root, file, write, says):
    write(csv_root / file, (csv_root / file).read_text())
    refuses(file, says, "UTF-8", root=csv_root)


# one decoder


def ramp(kind):
    """Grey levels 10 to 245, as a kind of file has them."""
    grey = np.tile(np.linspace(10, 245, 64).round().astype(np.uint8), (64, 1))
    image = Image.fromarray(grey)
    return {
        "L": lambda: image,
        "RGB": lambda: image.convert("RGB"),
        "P": lambda: image.convert("P"),
        "CMYK": lambda: image.convert("CMYK"),
        "RGBA": lambda: image.convert("RGBA"),
        "LA": lambda: image.convert("LA"),
        "16": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        "16 in 32": lambda: Image.fromarray(grey.astype(np.int32) * 257),
        "12 in 16": lambda: Image.fromarray(grey.astype(np.uint16) * 16),
        "14 in 16": lambda: Image.fromarray(grey.astype(np.uint16) * 64),
        "8 in 16": lambda: Image.fromarray(grey.astype(np.uint16)),
        "32": lambda: Image.fromarray(grey.astype(np.int32) * 2**22),
        "signed": lambda: Image.fromarray(grey.astype(np.int32) - 100),
        "float": lambda: Image.fromarray(grey / np.float32(255)),
        "float 255": lambda: Image.fromarray(grey.astype(np.float32)),
    }[kind](), grey


@pytest.mark.parametrize("kind", ["L", "RGB", "P", "CMYK", "RGBA", "LA", "16", "16 in 32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file_gives_the_same_levels(tmp_path, kind, channels):
    image, grey = ramp(kind)
    image.save(tmp_path / "a.tiff")
    assert abs(L.decode(tmp_path / "a.tiff", channels=channels).astype(int) - grey).max() <= 1


@pytest.mark.parametrize(
    "kind, says",
    [
        ("12 in 16", "16 bits stay under a quarter"),
        ("14 in 16", "16 bits stay"),
        ("8 in 16", "16 bits stay"),
        ("32", "not 0 to 65535"),
        ("signed", "not 0 to 65535"),
        ("float", "float32 pixels"),
        ("float 255", "float32 pixels"),
    ],
)
def test_a_range_that_is_not_known_is_refused(tmp_path, kind, says):
    ramp(kind)[0].save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=says):
        L.decode(tmp_path / "a.tiff")


def test_sixteen_bits_of_colour(tmp_path):
    """PNG files with 16 bits in each of three channels, which Pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(values):
        rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        )

    grey = ramp("L")[1].astype(np.uint16)
    (tmp_path / "16.png").write_bytes(png(grey * 257))
    (tmp_path / "12.png").write_bytes(png(grey * 16))
    assert np.array_equal(L.decode(tmp_path / "16.png", channels=1)[0], grey)
    with pytest.raises(DataError, match="16 bits stay under a quarter"):
        L.decode(tmp_path / "12.png")


def test_what_is_transparent_is_white(tmp_path):
    for mode, clear in (("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))):
        image = Image.new(mode, (8, 8), clear)
        image.putpixel((0, 0), (90, 90, 90, 255)[:1] + (255,) if mode == "LA" else (90, 90, 90, 255))
        image.save(tmp_path / "a.png")
        for channels in (1, 3):
            got = L.decode(tmp_path / "a.png", channels=channels)
            assert (got[:, 0, 0] == 90).all() and (got[:, 1:] == 255).all()
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    with pytest.warns(DataWarning, match="every pixel is transparent"):
        L.decode(tmp_path / "a.png")


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_as_pillow_turns_it(tmp_path, turn):
    image, exif = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)), Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(
        L.decode(tmp_path / "a.png", channels=1)[0],
        np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))),
    )


@pytest.mark.parametrize(
    "exif", [b"\0\x08\0\x02\x01\x12\0\x03", b"Exif-of-a-phone-app", b"MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.parametrize("end", ["png", "webp", "jpg"])
def test_damaged_exif_leaves_the_picture_as_it_lies(tmp_path, exif, end):
    Image.fromarray(ramp("L")[1]).convert("RGB").save(tmp_path / f"a.{end}", exif=exif)
    assert np.array_equal(
        L.decode(tmp_path / f"a.{end}"),
        np.asarray(Image.open(tmp_path / f"a.{end}").convert("RGB")).transpose(2, 0, 1),
    )


def test_pillows_limit_may_be_none(own_root, monkeypatch):
    expected = load("folder", own_root).fingerprint
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load("folder", own_root).fingerprint == expected
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    refuses("3200 pixels", "limit of 3000 pixels", name="folder", root=own_root)


# the real files


def real(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"set {variable} to test the real files")
    return Path(path)


def test_the_published_votes_give_the_papers_counts():
    votes = L.read_votes(real("MIXCUT_FERPLUS_VOTES"))
    _, keep = D.majority(votes[list(D.VOTES)])
    assert votes.split[keep.numpy()].value_counts().to_dict() == D.DATASETS["fer2013plus"].counts
    strangers = set(votes.index[(votes.image != "") & ~votes.own] - 2)
    assert strangers == {5274, 5348, 15835, 34334}


def test_the_real_folders():
    root = real("MIXCUT_FERPLUS")
    got = load("fer2013plus", root)
    if "label.csv" in got.found.rule:
        sizes = {key: len(split) for key, split in got.splits.items()}
        assert sizes.items() <= {"train": 28385, "valid": 3555, "test": 3545}.items()


def test_the_real_folders_by_the_published_votes(tmp_path):
    root, votes = real("MIXCUT_FERPLUS"), real("MIXCUT_FERPLUS_VOTES")
    for name in ("FER2013Train", "FER2013Valid", "FER2013Test"):
        if (root / name).is_dir():
            (tmp_path / name).symlink_to(root / name)
    shutil.copy(votes, tmp_path / "fer2013new.csv")
    got = load("fer2013plus", tmp_path)
    sizes = {key: len(split) for key, split in got.splits.items()}
    assert sizes.items() <= {"train": 28386, "valid": 3553, "test": 3546}.items()
    copies = {key: int(mask.sum()) for key, mask in got.copies.items()}
    assert (
        got.found.label_source == "fer2013new.csv" and copies.items() <= {"valid": 277, "test": 287}.items()
    )
