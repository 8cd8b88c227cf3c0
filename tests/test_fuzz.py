"""Data that nobody planned for: whatever lies in a folder, `load` ends in data that are right or in its
own named error, within bounded time and memory."""

import io
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mixcut.data import DataError, DataWarning, load
from mixcut.faces import drawn_faces
from mixcut.layouts import decode, read_raf_list
from mixcut.miniatures import write_fer_csv, write_fer_folders, write_rafdb

TEXTS = [
    b"",
    b",",
    b'"',
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff\xfe",
    b"-1",
    b"256",
    b"1e9",
    b"nan",
    b"0.5",
    b" ",
    b"Training",
    b"PrivateTest",
    b"../../etc/passwd",
    "é".encode(),
    b"9" * 400,
]
COUNTS = {"data": 0, "error": 0}
USAGE = ["Training"] * 6 + ["PublicTest"] * 3 + ["PrivateTest"] * 3


@pytest.fixture(scope="module")
def faces():
    return drawn_faces(12, seed=5)  # images, votes


def outcome(name, root, **options):
    """Load, and see that what comes is right: the only other end is a `DataError`."""
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            data = load(name, root, **options)
    except DataError as error:
        assert str(error).encode() and len(str(error)) < 5000
        COUNTS["error"] += 1
        return None
    finally:
        assert time.monotonic() - began < 20
    for split in data.splits.values():
        assert (
            split.images.dtype == torch.uint8
            and len(split.images) == len(split.labels)
            and split.images.shape[-1] == split.images.shape[-2]
        )
        assert len(split) == 0 or 0 <= split.labels.min() <= split.labels.max() < len(split.classes)
        "".join(split.classes).encode()
    COUNTS["data"] += 1
    return data


def mutate(content, changes):
    """Bytes with pieces replaced, inserted, cut out or doubled."""
    content = bytearray(content)
    for where, how, piece in changes:
        at = int(where * len(content))
        length = len(piece)
        if how == "replace":
            content[at : at + length] = piece
        elif how == "insert":
            content[at:at] = piece
        elif how == "cut":
            del content[at : at + 1 + 7 * length]
        elif how == "end":
            del content[at:]
        else:
            content[at:at] = content[at : at + 400]
    return bytes(content)


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["replace", "insert", "cut", "end", "double"]),
        st.one_of(st.sampled_from(TEXTS), st.binary(max_size=6)),
    ),
    max_size=5,
)


def tried(pytestconfig, **given_strategies):
    """A property, tried as often as was asked for; the same inputs each time."""
    return lambda test: settings(
        max_examples=pytestconfig.getoption("examples"),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(**given_strategies)(test))


def count(record, what, before):
    done = {name: COUNTS[name] - before[name] for name in COUNTS}
    record(
        what, sum(done.values()), f"{done['data']:,} became data, {done['error']:,} a DataError, nothing else"
    )
    assert done["data"] and done["error"]


def mutated(path, what, dataset, root, pytestconfig, record):
    """A file of a data set, damaged in as many ways as was asked for."""
    content, before = path.read_bytes(), dict(COUNTS)

    @tried(pytestconfig, changes=CHANGES)
    def check(changes):
        path.write_bytes(mutate(content, changes))
        outcome(dataset, root)

    check()
    count(record, f"mutated {what}", before)


@pytest.mark.parametrize("file", ["fer2013.csv", "fer2013new.csv"])
def test_mutated_csv_files(tmp_path, faces, pytestconfig, record, file):
    write_fer_csv(tmp_path, *faces, USAGE)
    assert outcome("fer2013plus", tmp_path)
    mutated(tmp_path / file, file, "fer2013plus", tmp_path, pytestconfig, record)


def test_mutated_label_files(tmp_path, faces, pytestconfig, record):
    write_fer_folders(tmp_path, *faces, USAGE)
    mutated(
        tmp_path / "FER2013Train" / "label.csv", "label.csv", "fer2013plus", tmp_path, pytestconfig, record
    )


def test_mutated_rafdb_list(tmp_path, pytestconfig, record):
    images, votes = drawn_faces(14, seed=6, size=100, channels=3)
    write_rafdb(tmp_path, images, np.arange(14) % 7, ["train"] * 7 + ["test"] * 7)
    mutated(
        tmp_path / "basic/EmoLabel/list_patition_label.txt",
        "list of RAF-DB",
        "rafdb",
        tmp_path,
        pytestconfig,
        record,
    )


def encoded(format, mode):
    """An image file's bytes."""
    file = io.BytesIO()
    image = Image.fromarray((np.arange(40 * 30 * 3) % 251).astype(np.uint8).reshape(40, 30, 3))
    image.convert(mode).save(file, format)
    return file.getvalue()


FILES = [
    encoded(*kind)
    for kind in (
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("TIFF", "I"),
        ("PNG", "1"),
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("WEBP", "RGB"),
        ("GIF", "P"),
        ("PPM", "L"),
    )
]


def test_mutated_images(tmp_path, pytestconfig, record):
    path, before = tmp_path / "image.png", dict(COUNTS)

    @tried(
        pytestconfig,
        content=st.sampled_from(FILES),
        changes=CHANGES,
        channels=st.sampled_from([1, 3]),
        fit=st.booleans(),
    )
    def check(content, changes, channels, fit):
        path.write_bytes(mutate(content, changes))
        began = time.monotonic()
        try:
            pixels = decode(path, 48, channels, fit)
            assert pixels.shape == (channels, 48, 48) and pixels.dtype == np.uint8
            COUNTS["data"] += 1
        except DataError as error:
            assert "image.png" in str(error)
            COUNTS["error"] += 1
        assert time.monotonic() - began < 5

    check()
    count(record, "mutated images of 14 kinds", before)


NAMES = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            " ",
            "it's",
            'a"b',
            "a b",
            "-p",
            "é",
            "名",
            "x" * 200,
            "<b>bold",
            "a&b",
            "a,b",
            "a\nb",
            "CON",
            "..a",
            "#",
            "%s",
            "{x}",
        ]
    ),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
    ).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200),
)


def test_folder_trees_of_any_names(tmp_path, pytestconfig, record):
    before, number = dict(COUNTS), iter(range(10**6))

    @tried(
        pytestconfig,
        tree=st.dictionaries(
            NAMES,
            st.lists(
                st.tuples(NAMES, st.sampled_from([".png", ".JPG", ".txt", ""]), st.integers(0, len(FILES))),
                max_size=5,
            ),
            max_size=4,
        ),
        splits=st.booleans(),
        skip=st.booleans(),
    )
    def check(tree, splits, skip):
        root = tmp_path / str(next(number))
        for part in ("train", "test") if splits else ("",):
            for name, files in tree.items():
                folder = root / part / name
                folder.mkdir(parents=True, exist_ok=True)
                for stem, end, kind in files:
                    (folder / (stem + end)).write_bytes(FILES[kind] if kind < len(FILES) else b"not an image")
        root.mkdir(exist_ok=True)
        outcome("folder", root, skip_corrupt=skip)

    check()
    count(record, "folder trees", before)


def tree(root, classes=("a", "b"), images=4):
    """A small healthy tree of images."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for k in range(images):
            (root / name / f"{k}.png").write_bytes(FILES[k % 2])
    return root


def fifo(root):
    os.mkfifo(root / "a" / "pipe.png")


def endless(root):
    (root / "a" / "zero.png").symlink_to("/dev/zero")


def bomb(root):
    Image.new("1", (30_000, 30_000)).save(root / "a" / "bomb.png")


def large(root):
    Image.new("L", (12_000, 9_000)).save(root / "a" / "large.png")


def dangling(root):
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")


def itself(root):
    (root / "a" / "me.png").symlink_to(root / "a" / "me.png")


def folder_called_image(root):
    (root / "a" / "folder.png").mkdir()


def socket(root):
    import socket as s

    server = s.socket(s.AF_UNIX)
    here = os.getcwd()
    os.chdir(root / "a")  # a socket's path is short
    server.bind("s.png")
    os.chdir(here)


def name_that_is_no_text(root):
    (Path(os.fsdecode(os.fsencode(root) + b"/a/\xff\xfe.png"))).write_bytes(b"nothing")


def class_that_is_no_text(root):
    folder = Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.png").write_bytes(FILES[0])


def empty_file(root):
    (root / "b" / "empty.png").write_bytes(b"")


@pytest.mark.parametrize(
    "make",
    [
        fifo,
        endless,
        bomb,
        large,
        dangling,
        itself,
        socket,
        name_that_is_no_text,
        class_that_is_no_text,
        empty_file,
    ],
    ids=lambda make: make.__name__,
)
def test_what_no_folder_should_hold(tmp_path, make, record):
    root = tree(tmp_path / "tree with 'quotes' and \"more\"")
    make(root)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = outcome("folder", root)
    assert found is None, make.__name__
    skipping = outcome("folder", root, skip_corrupt=True)
    if make is not class_that_is_no_text:
        assert skipping is not None and sum(len(split) for split in skipping.splits.values()) == 8
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert used < 300, f"{used:.0f} MB"
    record(
        f"a folder with: {make.__name__.replace('_', ' ')}",
        2,
        "a DataError; left out on request" if skipping else "a DataError",
    )


def test_what_is_harmless(tmp_path, record):
    root = tree(tmp_path / "t")
    folder_called_image(root)
    (root / ".hidden").mkdir()
    (root / "readme.txt").write_text("")
    (root / "a" / ".DS_Store").write_bytes(b"\0")
    (root / "a" / "deeper").mkdir()
    (root / "a" / "deeper" / "4.PNG").write_bytes(FILES[0])
    assert sum(len(split) for split in outcome("folder", root).splits.values()) == 9
    record(
        "a folder with: a folder called image.png, hidden files, a text, images below",
        1,
        "the images, nothing else",
    )


def test_a_loop_of_links_ends(tmp_path, record):
    root = tree(tmp_path / "t")
    for name in ("a", "b"):
        for k in range(3):
            (root / name / f"loop{k}").symlink_to(root)
    data = outcome("folder", root)
    assert data is not None and sum(len(split) for split in data.splits.values()) == 8, "each image once"
    record("a folder with: links to what is above it", 1, "each image once")


def test_what_may_not_be_read_is_named(tmp_path, record):
    """Root may read everything, so the folder is looked at by a process without rights."""
    root = tree(tmp_path / "t")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    os.chmod(root / "a" / "0.png", 0)
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            load("folder", root)
            os._exit(1)
        except DataError as error:
            os._exit(0 if "0.png" in str(error) and "PermissionError" in str(error) else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    record("a folder with: an image that may not be read", 1, "a DataError with its name")


@pytest.mark.parametrize("name, file", [("fer2013plus", "fer2013.csv"), ("fer2013plus", "fer2013new.csv")])
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "one long line", "itself"])
def test_files_that_do_not_end(tmp_path, faces, name, file, what, record):
    write_fer_csv(tmp_path, *faces, USAGE)
    path = tmp_path / file
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "itself": lambda: path.symlink_to(path),
        "one long line": lambda: (path.touch(), os.truncate(path, 4 << 30)),
    }[what]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcome(name, tmp_path) is None
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300
    record(f"{file} that is {what}", 1, "a DataError")


def test_a_million_lines_are_read_in_seconds(tmp_path, record):
    path = tmp_path / "list_patition_label.txt"
    path.write_text("".join(f"train_{k:07d}.jpg {k % 7 + 1}\n" for k in range(1_000_000)))
    began = time.monotonic()
    assert len(read_raf_list(path)) == 1_000_000
    seconds = time.monotonic() - began
    assert seconds < 60
    record("a list of a million lines", 1, f"read in {seconds:.1f} s")
