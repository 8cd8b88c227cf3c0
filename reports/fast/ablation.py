"""What the profile `fast` owes to each of its choices: `python reports/fast/ablation.py DATA_ROOT`.

Each trial changes one choice. Its accuracy is that of one crop of the validation faces after the last epoch;
no test face is looked at. Adds the rows that `ablation.csv` lacks; ten minutes of a thread each.
"""
import json
import sys
from pathlib import Path

import pandas as pd
import torch

from mixcut.config import Config
from mixcut.data import load
from mixcut.evaluate import accuracy, average, crop_logits
from mixcut.records import work
from mixcut.train import crop_size, start, train_epoch

TABLE = Path(__file__).with_name("ablation.csv")
FAST = {"profile": "fast", "dataset": "fer2013plus", "aug": "baseline", "precision": "fp32"}
TRIALS = [{}, {"epochs": 9}, {"epochs": 16}, {"lr": 0.03}, {"aug": "mixcut"}, {"init": "torch"},
          {"low_resolution": 0.0}]


def trial(changed: dict, data) -> dict:
    config = Config(**FAST | changed)
    size = crop_size(config, data.train)
    state = start(config, len(data.classes), size)
    for epoch in range(1, config.epochs + 1):
        train_epoch(state, data.train, config, epoch)
    probabilities = average(crop_logits(state.model, data.valid.images, size, 1))
    images = {"train": len(data.train)}
    flops = work(config, images, len(data.classes), size)["training_flops"]
    return {"changed": name(changed), "training TFLOP": flops / 1e12,
            "accuracy (%)": accuracy(probabilities, data.valid.labels)}


def name(changed: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in changed.items()) or "nothing"


if __name__ == "__main__":
    torch.set_num_threads(1)
    faces = load("fer2013plus", sys.argv[1])
    rows = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame({"changed": []})
    for changed in TRIALS:
        if name(changed) not in set(rows.changed):
            rows = pd.concat([rows, pd.DataFrame([trial(changed, faces)])], ignore_index=True)
            rows.to_csv(TABLE, index=False, lineterminator="\n", float_format="%.4g")
            print(json.dumps(rows.iloc[-1].to_dict()), flush=True)
