"""Runs that are killed, stopped, starved and disturbed: what they lose is counted, and it must be nothing.

`pytest tests/test_kills.py --kills 100 --grid-kills 20 --record reports/reliability` counts many."""

import multiprocessing
import os
import random
import resource
import signal
import time
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_grid import checkout, records, snakemake  # noqa: F401
from test_run import OPTIONS, TINY, papermill
from test_train import config, dataset, quiet

from mixcut import train
from mixcut.config import Config
from mixcut.data import load
from mixcut.records import CHECKPOINT, RunError, locked
from mixcut.train import fit

EPOCHS, BATCHES = 6, 9


# Its processes begin as copies of one that has only imported: quick, and clean.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mixcut.train"])
PROCESSES = {}


def work(chosen, data, log, before):
    """Train, and write each step that is done into a log."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if before:
        before()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(text, last=False):
        if ", image " in text:
            epoch, image = text.split("epoch ")[1].split()[0], text.split("image ")[1].split()[0]
            os.write(file, f"{epoch} {image}\n".encode())

    try:
        fit(chosen, data, note)
        os._exit(0)
    except RunError:
        os._exit(4)
    except KeyboardInterrupt:
        os._exit(3)
    except BaseException:
        os._exit(5)


def child(chosen, data, log, before=None):
    """Start a process that trains; its number."""
    process = FORKS.Process(target=work, args=(chosen, data, log, before))
    process.start()
    PROCESSES[process.pid] = process
    return process.pid


def holding(chosen, data, log):
    """Start a process that trains, and wait until it holds its folder."""
    pid = child(chosen, data, log)
    while not (chosen.folder / ".holder").exists():
        assert PROCESSES[pid].is_alive()
        time.sleep(0.001)
    return pid


def send(pid, number):
    with suppress(ProcessLookupError):  # it may be over
        os.kill(pid, number)


def ended(pid):
    PROCESSES[pid].join()
    return PROCESSES[pid].exitcode


def same_bits(first, second):
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    rows = [
        [line.rsplit(",", 2)[0] for line in (folder / "history.csv").read_text().splitlines()]
        for folder in (first, second)
    ]  # the last two are seconds
    return (
        all(torch.equal(a[name], b[name]) for name in a)
        and rows[0] == rows[1]
        and (first / "predictions.npz").read_bytes() == (second / "predictions.npz").read_bytes()
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("plain"), dataset(train=8 * BATCHES)
    # the server of processes has to import first
    assert ended(child(config(folder / "first", epochs=EPOCHS), data, folder / "first.log")) == 0
    began = time.monotonic()
    assert ended(child(config(folder, epochs=EPOCHS), data, folder / "log")) == 0
    return config(folder, epochs=EPOCHS).folder, data, time.monotonic() - began


@pytest.mark.parametrize(
    "number, exits",
    [(signal.SIGKILL, {-9}), (signal.SIGTERM, {-15}), (signal.SIGINT, {3, 1})],
    ids=["kill -9", "SIGTERM", "SIGINT"],
)
def test_a_run_killed_at_any_moment_ends_in_the_same_bits(
    tmp_path, undisturbed, number, exits, pytestconfig, record
):
    plain, data, seconds = undisturbed
    draws, wanted = random.Random(f"{number}"), max(1, pytestconfig.getoption("kills") // 3)
    kills = runs = repeated = wrong = 0
    while kills < wanted:
        chosen, log = config(tmp_path / str(runs), epochs=EPOCHS), tmp_path / f"{runs}.log"
        while True:
            pid = child(chosen, data, log)
            if kills < wanted:
                PROCESSES[pid].join(draws.uniform(0, seconds))
                send(pid, number)
            code = ended(pid)
            if code == 0:
                break
            assert code in exits  # SIGINT: 1 where Python is still starting
            kills += 1
        steps = log.read_text().split("\n")[:-1]
        repeated += len(steps) - len(set(steps))
        wrong += len(set(steps)) != EPOCHS * BATCHES or not same_bits(plain, chosen.folder)
        names = ["history.csv", "metrics.json", "model.safetensors", "predictions.npz"]
        assert sorted(path.name for path in chosen.folder.iterdir()) == names
        runs += 1
    record(
        f"a run, {signal.Signals(number).name}",
        kills,
        f"{runs} runs, {repeated} steps done twice, {wrong} runs that ended in other bits",
    )
    assert wrong == 0 and repeated <= kills * BATCHES  # at most the epoch in flight


def test_a_grid_killed_at_any_moment_loses_nothing(checkout, pytestconfig, record):  # noqa: F811
    """The engine, papermill and the kernels die together; what was finished stays, and the rest goes on."""
    draws, wanted, kills, seen = random.Random(8), pytestconfig.getoption("grid_kills"), 0, {}
    while True:
        process = snakemake(checkout, cores=1)
        if kills < wanted:
            deadline = time.monotonic() + draws.uniform(2, 12)
            while process.poll() is None:
                # first where it hurts most: a run is finished, and the engine does not know it yet
                if time.monotonic() > deadline if kills else records(checkout):
                    break
                time.sleep(0.02)
        if kills < wanted and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        output = process.communicate(timeout=300)[0]
        now = {name: path.read_bytes() for name, path in records(checkout).items()}
        assert all(now.get(name) == content for name, content in seen.items())
        seen = now
        if process.returncode == 0:
            break
        assert process.returncode == -9, output
        assert snakemake(checkout, "--unlock").wait() == 0
    assert len(seen) == 3 and (checkout / "reports/demo/report.html").exists()
    assert "Nothing to be done" in snakemake(checkout).communicate(timeout=120)[0]
    record("a grid, SIGKILL", kills, "no finished run lost or done again, the report made")


def starve():
    real, calls = os.fsync, iter(range(10**9))

    def fsync(number):  # two for each write: the holder, then checkpoints. The fourth checkpoint fails
        if next(calls) == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return real(number)
    os.fsync = fsync


def test_out_of_disk_keeps_the_checkpoint_before(tmp_path, undisturbed, record):
    """The limit on a file's size is the kernel's own; a full disk fails at the same call."""
    plain, data, _ = undisturbed
    chosen, log = config(tmp_path, epochs=EPOCHS), tmp_path / "log"

    assert ended(child(chosen, data, log, starve)) == 4
    steps = len(log.read_text().splitlines())
    assert (chosen.folder / CHECKPOINT).stat().st_size > 1000 and steps == 4 * BATCHES
    assert ended(child(chosen, data, log)) == 0 and same_bits(plain, chosen.folder)
    assert len(log.read_text().splitlines()) == (EPOCHS + 1) * BATCHES
    record("out of disk", 1, "RunError; went on from the checkpoint before, to the same bits")


def test_a_process_that_was_asleep_goes_on(tmp_path, undisturbed, record):
    plain, data, seconds = undisturbed
    chosen = config(tmp_path, epochs=EPOCHS)
    pid = child(chosen, data, tmp_path / "log")
    for _ in range(3):
        time.sleep(seconds / 8)
        send(pid, signal.SIGSTOP)
        time.sleep(0.3)
        send(pid, signal.SIGCONT)
    assert ended(pid) == 0 and same_bits(plain, chosen.folder)
    record("asleep (SIGSTOP, SIGCONT)", 3, "the same bits")


def stopped_run(tmp_path, data, step=20):
    """A run that was killed in its third epoch."""
    chosen, calls = config(tmp_path, epochs=EPOCHS), iter(range(10**9))

    def stop(text, last=False):
        if ", image " in text and next(calls) == step:
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(chosen, data, stop)
    assert (chosen.folder / CHECKPOINT).exists()
    return chosen


DAMAGE = {
    "cut": lambda b, at: b[:at],
    "a bit": lambda b, at: b[:at] + bytes([b[at] ^ 1]) + b[at + 1 :],
    "zeros": lambda b, at: b[:at] + bytes(len(b) - at),
    "nothing": lambda b, at: b"",
    "foreign": lambda b, at: b"PK" + b[:at],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_not_trusted(tmp_path, undisturbed, kind, pytestconfig, record):
    plain, data, _ = undisturbed
    draws, times = random.Random(kind), max(1, pytestconfig.getoption("kills") // 10)
    chosen = stopped_run(tmp_path, data)
    path, content = chosen.folder / CHECKPOINT, (chosen.folder / CHECKPOINT).read_bytes()
    for _ in range(times):
        path.write_bytes(DAMAGE[kind](content, draws.randrange(1, len(content))))
        with pytest.raises(
            RunError,
            match="checkpoint.pt is not a checkpoint that can be read .* overwrite = True, to begin again",
        ):
            fit(chosen, data, quiet)
    path.write_bytes(content)
    fit(chosen, data, quiet)
    assert same_bits(plain, chosen.folder)
    path.write_bytes(DAMAGE[kind](content, 1000))
    fit(replace(chosen, overwrite=True), data, quiet)
    assert same_bits(plain, chosen.folder)
    record(f"a damaged checkpoint: {kind}", times, "refused, by name; begun again on request")


def test_two_processes_and_one_folder(tmp_path, undisturbed, record):
    plain, data, _ = undisturbed
    chosen = config(tmp_path, epochs=EPOCHS)
    first = holding(chosen, data, tmp_path / "first")
    send(first, signal.SIGSTOP)  # or it may be done before the other gives up
    try:
        with pytest.raises(RunError, match=f"process {first} on .* since .*: wait until it is done"):
            fit(chosen, data, quiet)
    finally:
        send(first, signal.SIGCONT)
    assert ended(first) == 0 and same_bits(plain, chosen.folder)
    pids = [child(config(tmp_path / "many", epochs=EPOCHS), data, tmp_path / f"{k}") for k in range(6)]
    codes = sorted(ended(pid) for pid in pids)
    assert codes[0] == 0 and set(codes) <= {0, 4}, codes
    assert same_bits(plain, config(tmp_path / "many", epochs=EPOCHS).folder)
    steps = [line for k in range(6) for line in (tmp_path / f"{k}").read_text().splitlines()]
    assert len(steps) == len(set(steps))
    record("two writers", 7, "one works, the others are told who; no step done twice")


def test_the_lock_of_a_dead_process_is_none(tmp_path, undisturbed, record):
    plain, data, _ = undisturbed
    chosen = config(tmp_path, epochs=EPOCHS)
    pid = holding(chosen, data, tmp_path / "log")
    send(pid, signal.SIGKILL)
    ended(pid)
    assert (chosen.folder / ".lock").exists()
    (chosen.folder / f".{CHECKPOINT}.{pid}").write_bytes(b"what it was writing")
    with locked(chosen.folder):
        pass
    assert not list(chosen.folder.glob(".*"))
    fit(chosen, data, quiet)
    assert same_bits(plain, chosen.folder)
    record("a stale lock", 1, "recognised")


def test_a_loss_that_is_not_finite_leaves_a_good_checkpoint(tmp_path, undisturbed, monkeypatch, record):
    plain, data, _ = undisturbed
    with pytest.raises(RunError, match=r"epoch 1, batch \d+|after epoch 1 a weight is not finite"):
        fit(config(tmp_path / "wild", epochs=EPOCHS, lr=100.0, weight_decay=100.0), data, quiet)
    chosen, step, calls = config(tmp_path, epochs=EPOCHS), train.train_step, iter(range(10**9))
    monkeypatch.setattr(
        train, "train_step", lambda *given: step(*given) * (float("nan") if next(calls) == 20 else 1)
    )
    with pytest.raises(RunError, match="epoch 3, batch 3 is nan"):
        fit(chosen, data, quiet)
    monkeypatch.undo()
    fit(chosen, data, quiet)
    assert same_bits(plain, chosen.folder)
    record(
        "a loss that is not finite",
        2,
        "stopped, with epoch and batch; went on from the checkpoint before, to the same bits",
    )


@pytest.mark.parametrize("whom", ["papermill", "the kernel"])
def test_a_notebook_that_gets_sigterm_goes_on_from_its_last_epoch(tmp_path, whom, record):
    """As a cluster's pre-emption does it."""
    given = {**TINY, "epochs": 60, "precision": "fp32"}
    chosen = Config(**given, data_options=OPTIONS["data_options"], runs=str(tmp_path / "runs"))
    process = papermill(tmp_path, **given)
    while process.poll() is None and not (chosen.folder / CHECKPOINT).exists():
        time.sleep(0.02)
    kernels = psutil.Process(process.pid).children(recursive=True)
    for one in [process] if whom == "papermill" else kernels:
        one.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert not psutil.wait_procs(kernels, timeout=20)[1], "a kernel that nobody waits for"
    assert process.returncode != 0 and (chosen.folder / CHECKPOINT).exists(), output
    epochs = set()
    run = fit(
        chosen,
        load("drawn", **OPTIONS["data_options"]),
        lambda text, last=False: epochs.add(text.split("epoch ")[-1].split()[0]),
    )
    assert len(run.history) == 60 and "1" not in epochs and "60" in epochs
    record(f"SIGTERM to {whom}", 1, "went on from the last epoch")
