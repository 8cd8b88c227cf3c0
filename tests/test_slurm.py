"""Four cells and their report through a real SLURM of one node, started here and stopped.

It needs Debian's packages slurm-wlm and munge."""
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import test_grid
from test_grid import TINY, environment, records

from mixcut.grid import jobs as grid_jobs
from mixcut.grid import resources

checkout = test_grid.checkout  # a fixture

CONF = Path("/etc/slurm/slurm.conf")  # nested srun reads no other
TOLD = """
ClusterName=mixcut
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={home}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ctld}
SlurmdPort={node}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be no SLURM here, or nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "SLURM's daemons need root"
    if absent := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return f"{CONF} is there: this machine has a SLURM of its own" if CONF.exists() else ""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def slurm(tmp_path):
    if why := missing():
        pytest.skip(why)
    home = tmp_path / "slurm"
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    for folder in (home, *home.parents):
        folder.chmod(folder.stat().st_mode | 0o055)  # munged, as its own user, goes through them
    shutil.chown(home, "munge")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
    host = socket.gethostname().split(".")[0]
    CONF.write_text(TOLD.format(host=host, home=home, ctld=free_port(), node=free_port(), cpus=os.cpu_count(),
                                memory=memory))
    daemons = []
    try:
        munged = ["runuser", "-u", "munge", "--", "munged", "--foreground", "--force",
                  f"--socket={home}/munge.socket", f"--pid-file={home}/munge.pid",
                  f"--log-file={home}/munge.log", f"--seed-file={home}/munge.seed"]
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            out = (home / f"{words[0]}.out").open("w")
            daemons.append(subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT))
            time.sleep(1)
        for _ in range(60):
            states = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout
            if "idle" in states:
                break
            time.sleep(0.5)
        else:
            pytest.fail("\n".join(path.read_text() for path in home.glob("*.out")))
        yield home
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=20)
        CONF.unlink()


CELLS = ("baseline", "cutout", "mixup", "mixcut")
LONGER = TINY | {"epochs": 12}  # long enough to be pre-empted


def jobs_of(*columns):
    """What squeue says of every job, running or over."""
    said = output_of("squeue", "-h", "-t", "all", "-o", " ".join(columns))
    return [tuple(line.split()) for line in said.splitlines()]


def preempt(checkout):
    """Requeue the first job whose run has written a checkpoint, as a cluster does that needs the node."""
    for _ in range(600):
        if list(checkout.glob("runs/demo/drawn/*/seed0/checkpoint.pt")):
            for job, state in jobs_of("%i", "%T"):
                requeue = ["scontrol", "requeue", job]
                if state == "RUNNING" and subprocess.run(requeue, capture_output=True).returncode == 0:
                    return job
        time.sleep(0.2)
    pytest.fail("no run wrote a checkpoint in two minutes")


def test_four_cells_and_the_report(slurm, checkout):
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm",
               "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5",
               "--seconds-between-status-checks", "5", "--latency-wait", "20",
               "--config", "gflops=10", "datasets=drawn", f"cells={','.join(CELLS)}", "seeds=1",
               f"parameters={json.dumps(LONGER)}"]
    engine = subprocess.Popen(command, cwd=checkout, env=environment(checkout.parent), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    stopped = preempt(checkout)
    output = engine.communicate(timeout=500)[0]
    assert engine.returncode == 0, output
    made = records(checkout)
    assert set(made) == set(CELLS) and (checkout / "reports/demo/report.html").exists()
    assert all(len((path.parent / "history.csv").read_text().splitlines()) == 13 for path in made.values())
    assert "Restarts=1" in output_of("scontrol", "show", "job", stopped)
    jobs = jobs_of("%i", "%T", "%l", "%m")
    assert len(jobs) == 4, jobs  # the report is made where Snakemake runs
    grid = grid_jobs(datasets="drawn", cells=list(CELLS), seeds=1, **LONGER)
    [(minutes, megabytes)] = {tuple(resources(job, {"drawn": 1e10}).values()) for job in grid}
    wanted = ("COMPLETED", f"{minutes}:00", f"{megabytes}M")
    assert {job[1:] for job in jobs} == {wanted}, jobs  # time and memory are the forecast's
