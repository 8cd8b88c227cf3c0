"""The paper's grid: a run of nbs/run.ipynb for each cell and seed, and the report over them.
The list of runs is mixcut.grid's.

snakemake --cores 2                                                the demonstration on drawn faces
snakemake --cores 2 --config profile=paper data_root=FACES         the paper
snakemake so_far --cores 1                                         a report over what is finished

Further --config: datasets=a,b cells=a,b seeds=2 runs=FOLDER reports=FOLDER
gflops=N (of the machines that train; else measured here) gpus=1 threads=1 (of each run; without a cluster,
--resources gpu=1 then gives one run at a time the GPU)
parameters='{"epochs": 60}' (of each run; they override the profile's)
A finished run is read back, not trained again: to train it again, remove its folder. Changed images are
noticed only by runs that are not finished: give them a new runs=FOLDER.
"""
import json
import os
import sys
from pathlib import Path

import torch
import yaml

from mixcut.config import ConfigError, given, unknown
from mixcut.grid import check, forecasts, jobs, rates_of, resources


def typed(value):
    "Snakemake's command line makes a mapping of what looks like one, and leaves everything in it text."
    if isinstance(value, dict):
        return {name: typed(inner) for name, inner in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


NAMES = ("profile", "data_root", "runs", "datasets", "cells", "seeds")
FURTHER = {"reports": (str, "a path, such as ./2024"), "gflops": ((int, float), "a number"),
           "gpus": (int, "a whole number"), "threads": (int, "a whole number"),
           "parameters": (dict, "a mapping")}
for name, value in config.items():
    if name not in (*NAMES, *FURTHER):
        raise ConfigError(unknown(name, [*NAMES, *FURTHER]))
    kind, what = FURTHER.get(name, (object, ""))
    if not isinstance(typed(value) if kind is dict else value, kind):
        raise ConfigError(f"{name} = {value!r}: it must be {what}")
CHOICE = {name: config[name] for name in NAMES if name in config}
PARAMETERS = typed(config.get("parameters", {}))
if clash := sorted(CHOICE.keys() & PARAMETERS.keys()):
    raise ConfigError(f"{', '.join(clash)}: given in --config and in its parameters; leave one out")
GRID = jobs(**CHOICE, **PARAMETERS)
check(GRID)

PROFILE = GRID[0].profile
RUNS = Path(GRID[0].runs, PROFILE).as_posix()  # as in each job's folder: ./ and a last / are gone
REPORTS = os.path.expanduser(config.get("reports", "reports"))
FOLDER = RUNS + "/{dataset}/{cell}/seed{seed}"
JOBS = {job.folder.as_posix(): job for job in GRID}
DONE = [f"{folder}/finished" for folder in JOBS]  # not the record: Snakemake deletes an output at will
NOTEBOOKS = f"{workflow.basedir}/nbs/"
START = "{sys.executable:q} -m papermill --no-progress-bar --start-timeout 600 {NOTEBOOKS:q}"
SHOW = json.dumps({"runs": GRID[0].runs, "profile": PROFILE, "out": f"{REPORTS}/{PROFILE}"})


def job_of(wildcards):
    return JOBS[FOLDER.format(**wildcards)]


def given_to(job):
    # a GPU that is booked has to be used, or the job fails at once; a finished run is only read back
    booked = config.get("gpus") and job.device == "auto" and not (job.folder / "metrics.json").exists()
    return given(job) | ({"device": "cuda"} if booked else {})


def rates():
    # measured once, by the first process that needs it: every job's own process reads this file again
    known = os.environ.get("MIXCUT_RATES")
    torch.set_num_threads(int(config.get("threads", 1)))  # as each run
    found = json.loads(known) if known else rates_of(GRID, config.get("gflops"))
    os.environ["MIXCUT_RATES"] = json.dumps(found)
    return found


localrules: all, report, so_far


rule all:
    # the runs too: a report that is there already asks for none
    input: DONE, f"{REPORTS}/{PROFILE}/report.html"


rule cell:
    output: touch(FOLDER + "/finished")
    log:
        notebook=FOLDER + "/run.ipynb",
        text=FOLDER + "/run.log",
    params: given=lambda wildcards: json.dumps(given_to(job_of(wildcards)))
    threads: int(config.get("threads", 1))
    resources:
        runtime=lambda wildcards: resources(job_of(wildcards), rates())["runtime"],
        mem_mb=lambda wildcards, attempt: attempt * resources(job_of(wildcards), rates())["mem_mb"],
        gpu=int(config.get("gpus", 0)),
    shell: START + "run.ipynb {log.notebook} -y {params.given:q} > {log.text} 2>&1"


rule report:
    input: DONE
    output: report(f"{REPORTS}/{PROFILE}/report.html", category="report")
    log:
        notebook=f"{RUNS}/report.ipynb",
        text=f"{RUNS}/report.log",
    params: given=SHOW
    shell: START + "report.ipynb {log.notebook} -y {params.given:q} > {log.text} 2>&1"


rule so_far:
    log:
        notebook=f"{RUNS}/so-far.ipynb",
        text=f"{RUNS}/so-far.log",
    params: given=SHOW
    shell: START + "report.ipynb {log.notebook} -y {params.given:q} > {log.text} 2>&1"


onstart:
    print(forecasts(GRID, rates()).round(3).to_string(), "\nhours: one run after the other", file=sys.stderr)
