"""Training at the edges: odd batches, missing splits, resuming, refusing, settings that change their own."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from mixcut import augment, train
from mixcut.config import Config, ConfigError, from_parameters, resolve_device
from mixcut.data import Dataset, Found, Split
from mixcut.records import CHECKPOINT, RunError, load_checkpoint, load_run, run_settings, save_checkpoint
from mixcut.train import (
    STREAMS,
    crop_size,
    fit,
    forecast,
    generator,
    learning_rate,
    load_data,
    memory_format,
    start,
    train_batches,
    train_epoch,
    train_step,
    work,
)


def quiet(text, last=False):
    pass


def split(n, seed, classes=3, size=36, channels=1):
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 120, (n, channels, size, size), dtype=torch.uint8, generator=draws)
    images += (60 * labels).byte().view(-1, 1, 1, 1)
    return Split(images, labels, tuple("abcdefgh"[:classes]))


def dataset(train=24, valid=9, test=10, **options):
    parts = [split(n, seed, **options) if n else None for seed, n in enumerate((train, valid, test))]
    return Dataset("folder", *parts, Found("made", "made"))


def config(tmp_path, **options):
    return Config(
        **{
            "runs": str(tmp_path),
            "epochs": 2,
            "width": 0.05,
            "batch_size": 8,
            "crop": 32,
            "device": "cpu",
            "precision": "fp32",
            "schedule": "scaled",
            "init": "torch",
            "lr": 0.01,
            **options,
        }
    )


@pytest.mark.parametrize("n", [24, 25, 31, 9, 2])
def test_any_number_of_images_trains(tmp_path, n):
    run = fit(config(tmp_path), dataset(train=n), quiet)
    assert len(run.history) == 2 and np.isfinite(run.history.train_loss).all()


def test_every_image_is_seen_once_an_epoch(tmp_path):
    data = dataset(train=25)
    for aug in ("baseline", "cutout"):
        seen = torch.cat([labels for _, labels in train_batches(data.train, config(tmp_path, aug=aug))])
        assert seen.sum(0).tolist() == list(data.train.counts().values())


@pytest.mark.parametrize("stream, sees", [("order", "labels"), ("crop", "images")])
def test_methods_share_what_the_seed_decides(tmp_path, stream, sees):
    data = dataset()
    plain = list(train_batches(data.train, config(tmp_path, aug="baseline", seed=3)))
    mixed = list(train_batches(data.train, config(tmp_path, aug="mixup", lam=1.0, seed=3)))  # changes nothing
    for a, b in zip(plain, mixed, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    other = next(train_batches(data.train, config(tmp_path, aug="baseline", seed=4)))
    assert not torch.equal(plain[0][0], other[0])


def test_seeds_of_streams_and_epochs_are_all_different():
    seeds = [generator(seed, stream, epoch).initial_seed()
             for seed in range(5) for stream in STREAMS for epoch in range(20)]
    assert len(set(seeds)) == len(seeds)


def test_schedule_is_the_papers():
    rates = [learning_rate(epoch) for epoch in range(1, 251)]
    assert (
        rates[78] == 0.01
        and rates[79] == pytest.approx(0.009)
        and rates[83] == rates[79]
        and rates[84] == pytest.approx(0.0081)
    )
    assert rates[249] == pytest.approx(0.01 * 0.9 ** 35)
    assert (
        learning_rate(60, 60) == rates[249]
        and learning_rate(19, 60) == 0.01
        and learning_rate(20, 60) == pytest.approx(0.009)
    )


def test_without_a_test_split_the_validation_split_is_measured(tmp_path):
    run = fit(config(tmp_path), dataset(test=0), quiet)
    assert run.metrics["measured"] == run.metrics["monitor"] == "valid"
    assert list(run.metrics["splits"]) == ["valid"]
    assert run.score("valid") is None  # nothing was chosen on a split of its own


def test_without_a_validation_split_the_test_split_is_watched(tmp_path):
    run = fit(config(tmp_path), dataset(valid=0), quiet)
    assert run.metrics["monitor"] == "test" and list(run.metrics["splits"]) == ["test"]
    assert run.score("valid") is None


def test_best_test_measures_every_epoch_and_costs_more(tmp_path):
    data = dataset()
    long, thorough = config(tmp_path / "a", epochs=12), config(tmp_path / "b", epochs=12, best_test=True)
    assert forecast(thorough, data)["flops"] > forecast(long, data)["flops"]
    first, second = fit(long, data, quiet), fit(thorough, data, quiet)
    assert first.score("best_test") is None
    assert second.score("best_test") == second.history.test_accuracy.max() >= second.score("last")
    assert first.history.test_accuracy[:2].isna().any() and second.history.test_accuracy.notna().all()
    assert np.array_equal(first.probabilities, second.probabilities)  # looking changes nothing
    assert first.score("valid") == second.score("valid")
    for split in ("valid", "test"):  # the ten that are kept are the last ten, however many were measured
        assert np.array_equal(first.predictions[split].ten_crop, second.predictions[split].ten_crop)


def test_a_forecast_touches_nothing(tmp_path):
    data, state = dataset(), torch.get_rng_state()
    plain = fit(config(tmp_path / "a"), data, quiet)
    forecast(config(tmp_path / "b"), data)
    assert np.array_equal(plain.probabilities, fit(config(tmp_path / "b"), data, quiet).probabilities)
    assert torch.equal(state, torch.get_rng_state())


def plain_batch(data, config, index, crops, transform):
    """A MixCut batch in float64, image by image, with the same draws."""
    n, size = len(index), config.crop
    top, left, mirror = (
        torch.randint(high, (n, 1), generator=crops, dtype=dtype)
        for high, dtype in ((5, torch.int64), (5, torch.int64), (2, torch.bool))
    )
    images = []
    for i, y, x, flip in zip(index, top[:, 0], left[:, 0], mirror[:, 0], strict=True):
        image = data.train.images[i].double()[:, y:y + size, x:x + size] / 255
        images.append(image.flip(2) if flip else image)
    labels = [torch.eye(3, dtype=torch.float64)[data.train.labels[i]] for i in index]
    drawn = transform.draw(n, size, size)
    lam, (y0, y1, x0, x1) = drawn.lam.item(), drawn.box[0]
    mixed = [lam * images[k] + (1 - lam) * images[partner] for k, partner in enumerate(drawn.order)]
    for image in mixed:
        image[:, y0:y1, x0:x1] = 0
    return torch.stack(mixed), torch.stack(
        [lam * labels[k] + (1 - lam) * labels[partner] for k, partner in enumerate(drawn.order)]
    )


@pytest.mark.parametrize(
    "given", [{}, {"schedule": "one-cycle", "lr": 0.002, "init": "identity", "gamma": 1.0}]
)
def test_an_epoch_is_the_plain_loop(tmp_path, given, monkeypatch):
    """An epoch against the loop that a reader would write: images one by one, the mathematics of SGD by hand.

    Both in float64: in fp32 two processors' kernels round differently, and batch norm amplifies that."""
    monkeypatch.setattr(train, "to_float", partial(augment.to_float, dtype=torch.float64))
    monkeypatch.setattr(augment, "soften", partial(augment.soften, dtype=torch.float64))
    data, chosen = dataset(train=56), config(tmp_path, aug="mixcut", batch_size=24, **given)
    state = start(chosen, 3, 32)
    state.model.double()
    loss = train_epoch(state, data.train, chosen, 1)
    model = start(chosen, 3, 32).model.double().train()
    velocity, total, done = [torch.zeros_like(w) for w in model.parameters()], 0.0, 0
    crops, transform = (
        generator(chosen.seed, "crop", 1),
        chosen.transform(3, generator(chosen.seed, "mix", 1)),
    )
    torch.manual_seed(generator(chosen.seed, "dropout", 1).initial_seed())
    for index in torch.randperm(56, generator=generator(chosen.seed, "order", 1)).split(chosen.batch_size):
        images, labels = plain_batch(data, chosen, index, crops, transform)
        each = -(labels * model(images).log_softmax(1)).sum(1).mean()
        lr = learning_rate(1, chosen.epochs, chosen.lr, chosen.schedule, (done + len(index) / 2) / 56)
        gradients = torch.autograd.grad(each, list(model.parameters()))
        for w, v, g in zip(model.parameters(), velocity, gradients, strict=True):
            v.mul_(chosen.momentum).add_(g + chosen.weight_decay * w.detach())
            w.data -= lr * v
        total, done = total + each.item() * len(index), done + len(index)
    assert loss == pytest.approx(total / 56, rel=1e-10)
    untouched = start(chosen, 3, 32).model.double()
    networks = (state.model, model, untouched)
    for a, b, first in zip(*(network.parameters() for network in networks), strict=True):
        assert a.dtype == torch.float64 and not torch.equal(a, first)
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_low_resolution_is_the_beginning_shrunk(tmp_path):
    data, chosen = (
        dataset(size=72),
        config(tmp_path, crop=64, low_resolution=0.4),
    )  # 24 images of 2 epochs: the first 20 of 48, so three batches
    sides = [
        [images.shape[-1] for images, _ in train_batches(data.train, replace(chosen, crop=70), epoch)]
        for epoch in (1, 2)
    ]
    assert sides == [[64, 64, 64], [70, 70, 70]]
    full = work(replace(chosen, crop=70, low_resolution=0), {"train": 24}, 3, 70)["training_flops"]
    assert full * 0.9 < work(replace(chosen, crop=70), {"train": 24}, 3, 70)["training_flops"] < full
    assert len(fit(replace(chosen, crop=70), data, quiet).history) == 2


def test_what_has_a_left_and_a_right_is_not_mirrored(tmp_path):
    images = torch.arange(36, dtype=torch.uint8).expand(24, 1, 36, 36).contiguous()  # brighter to the right
    data, chosen = dataset(), config(tmp_path, mirror=False, aug="baseline")
    data = replace(data, train=Split(images, data.train.labels, data.train.classes))
    assert all((batch[..., -1] > batch[..., 0]).all() for batch, _ in train_batches(data.train, chosen))
    run = fit(chosen, data, quiet)
    assert run.probabilities.shape == (10, 3) and run.measured.one_crop.shape == (1, 10)
    mirrored = fit(replace(chosen, mirror=True, runs=str(tmp_path / "mirrored")), data, quiet)
    assert not np.array_equal(run.probabilities, mirrored.probabilities)
    assert forecast(chosen, data)["flops"] < forecast(replace(chosen, mirror=True), data)["flops"]


def test_a_run_of_few_epochs_or_of_one_cycle_has_no_last_ten(tmp_path):
    run = fit(config(tmp_path, epochs=3), dataset(), quiet)
    assert run.score("last10") is None and run.score("last") == run.history.test_accuracy.iloc[-1]
    # the last, and the one chosen on the validation split
    assert run.history.test_accuracy.notna().sum() <= 2
    assert run.measured.right() is None
    assert run.measured.ten_crop.shape == run.measured.one_crop.shape == (1, 10)
    ten = fit(config(tmp_path / "ten", epochs=10), dataset(), quiet)
    assert ten.history.test_accuracy.notna().all() and ten.history.valid_accuracy.notna().all()
    annealed = fit(config(tmp_path / "annealed", epochs=10, schedule="one-cycle"), dataset(), quiet)
    assert annealed.score("last10") is None and annealed.history.valid_accuracy.notna().sum() == 1


def test_gradients_are_clamped_on_request(tmp_path):
    data, chosen = dataset(), config(tmp_path, grad_clamp=1e-6)
    state = start(chosen, 3, 32)
    train_epoch(state, data.train, chosen, 1)
    assert max(p.grad.abs().max() for p in state.model.parameters()) <= 1e-6


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    data, chosen = dataset(), config(tmp_path)

    def stop(text, last=False):
        if "epoch 2 of" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(chosen, data, stop)
    with pytest.raises(RunError, match="dropout = 0.2 there and 0.1 here"):
        fit(replace(chosen, dropout=0.1), data, quiet)
    with pytest.raises(RunError, match="data = "):
        fit(chosen, dataset(train=23), quiet)
    assert len(fit(chosen, data, quiet).history) == 2
    assert not (chosen.folder / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"not a checkpoint",
        lambda b: b[:-200] + bytes(200),
    ],
)
def test_a_torn_checkpoint_is_named(tmp_path, damage):
    data, chosen = dataset(), config(tmp_path)
    state, settings = start(chosen, 3, 32), run_settings(chosen, data, 32, "cpu", "fp32")
    chosen.folder.mkdir(parents=True)
    save_checkpoint(chosen.folder, settings, state)
    path = chosen.folder / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        RunError, match="checkpoint.pt is not a checkpoint that can be read.*overwrite = True"
    ):
        load_checkpoint(chosen.folder, settings, state)


def test_overwrite_begins_again(tmp_path):
    data = dataset()
    fit(config(tmp_path), data, quiet)
    with pytest.raises(RunError, match="epochs = 2 there and 3 here"):
        fit(config(tmp_path, epochs=3), data, quiet)
    assert len(fit(config(tmp_path, epochs=3, overwrite=True), data, quiet).history) == 3


def test_a_run_is_read_back_as_it_was(tmp_path):
    run = fit(config(tmp_path), dataset(), quiet)
    again = load_run(config(tmp_path).folder)
    assert again.metrics == run.metrics and np.array_equal(again.probabilities, run.probabilities)
    assert again.history.train_loss.tolist() == run.history.train_loss.tolist()


def test_an_unwritable_folder_is_named_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        fit(config(tmp_path / "file"), dataset(), quiet)


class OnMPS(torch.Tensor):
    """Refuses to become float64, as a tensor on Apple's GPU does (pytorch#122602)."""
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.double:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else out


def test_no_loss_is_float64_where_there_is_none(tmp_path, monkeypatch):
    plain = fit(config(tmp_path / "a"), dataset(), quiet)
    step = train_step
    monkeypatch.setattr(train, "train_step", lambda *given: step(*given).as_subclass(OnMPS))
    assert fit(config(tmp_path / "b"), dataset(), quiet).history.train_loss.equals(plain.history.train_loss)


DEFAULT = """
import sys, torch
torch.set_default_device(sys.argv[1])
from mixcut.config import Config
from mixcut.data import load
from mixcut.faces import drawn_faces
from mixcut.predict import load_network
from mixcut.train import fit, forecast
few = {"train": 40, "valid": 9, "test": 10}
data, own = load("drawn", **few), load("folder", sys.argv[2])
run = Config(dataset="drawn", data_options=few, epochs=2, width=0.05, device="cpu", runs=sys.argv[3])
assert forecast(run, data)["flops"]
print(fit(run, data).probabilities.sum(0), own.fingerprint, drawn_faces(2, 0)[1].tolist(),
      load_network()(data.test.images[:2]).tolist())
"""


def test_the_default_device_changes_nothing(tmp_path):
    """`meta` stands for cuda and mps: it does not mix with the CPU either."""
    for name in "ab":
        (tmp_path / "own" / name).mkdir(parents=True)
        for k in range(9):
            Image.new("L", (40, 40), 20 * k + (name == "b")).save(tmp_path / "own" / name / f"{k}.png")
    said = [subprocess.run([sys.executable, "-c", DEFAULT, device, tmp_path / "own", tmp_path / device],
                           capture_output=True, text=True) for device in ("cpu", "meta")]
    assert said[0].stdout and said[0].stdout == said[1].stdout, said[1].stderr


def test_runs_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    fit(config("~/mixcut-runs"), dataset(), quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["home"] and load_run(
        tmp_path / "home/mixcut-runs/quick/drawn/mixcut/seed0"
    )


def test_numbers_may_be_text_and_none_is_the_profiles():
    assert config("runs", beta="9/64", epochs="3", lr=np.float32(0.5)) == config(
        "runs", beta=9 / 64, epochs=3.0, lr=0.5
    )
    assert Config(epochs=None, lam=None, data_options=None) == Config()


def test_a_weight_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    """It comes out of a last step whose loss was finite. The checkpoint before stays as it was."""
    chosen, data, step = config(tmp_path, epochs=3), dataset(), train.train_step
    before = []

    def blow(state, *given):
        loss = step(state, *given)
        if len(state.history) == 1:
            torch.nn.init.constant_(state.model.classifier.weight, float("inf"))
            before.append((chosen.folder / CHECKPOINT).read_bytes())
        return torch.zeros_like(loss) if len(state.history) == 1 else loss

    monkeypatch.setattr(train, "train_step", blow)
    with pytest.raises(RunError, match="after epoch 2 a weight is not finite: lower lr"):
        fit(chosen, data, quiet)
    assert (chosen.folder / CHECKPOINT).read_bytes() == before[0]


def test_a_missing_device_fails_before_the_data_are_read():
    with pytest.raises(ConfigError, match="no such device"):
        load_data(Config(device="cuda:99", dataset="folder", data_root="nowhere"))


def test_mps_keeps_the_default_memory_format():
    found = [memory_format(torch.device(kind)) for kind in ("cpu", "cuda", "mps")]
    assert found == [torch.channels_last, torch.channels_last, torch.contiguous_format]


@pytest.mark.filterwarnings("error")
def test_random_states_of_four_gpus_are_restored_without_a_warning(monkeypatch):
    states = {k: k for k in range(4)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    with train.seeded(0, "dropout", 1):
        states.update(dict.fromkeys(range(4), "seeded"))
    assert states == {k: k for k in range(4)}


def test_a_gpu_whose_driver_is_too_old_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # by NVML, while the runtime refuses
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type != "cuda"
    with pytest.raises(ConfigError, match="'cuda': no such device here"):
        resolve_device("cuda")
    with train.seeded(0, "dropout", 1):
        torch.rand(2)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    chosen = config(tmp_path)
    state = start(chosen, 3, 32)
    torch.nn.init.constant_(state.model.classifier.weight, float("nan"))
    with pytest.raises(RunError, match="epoch 1, batch 1 is nan: lower lr"):
        train_epoch(state, dataset().train, chosen, 1)


@pytest.mark.parametrize(
    "given, match",
    [
        ({"aug": "mixct"}, "did you mean 'mixcut'"),
        ({"dataset": "fer2013plu"}, "did you mean 'fer2013plus'"),
        ({"device": "gpu"}, "device"),
        ({"lam": -0.1}, "lam"),
        ({"beta": "5/4"}, "beta"),
        ({"beta": "a/b"}, "beta"),
        ({"gamma": 2}, "gamma"),
        ({"batch_size": 1}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"seed": -1}, "seed"),
        ({"width": 0}, "width"),
        ({"lr": "fast"}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"profile": "a/b"}, "profile"),
        ({"profile": ".."}, "profile"),
        ({"crop": 10}, "crop"),
        ({"best_test": "yes"}, "best_test"),
        ({"seed": True}, "seed"),
        ({"mirror": 1}, "mirror"),
        ({"grad_clamp": 0}, "grad_clamp"),
        ({"alpha": 2}, "not a parameter"),
        ({"precision": "fp16"}, "precision"),
        ({"aug": "cutmix", "beta": 0.2}, "cutmix has no beta"),
        ({"learning_rate": 0.1}, "not a parameter"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"gama": 1}, "did you mean 'gamma'"),
    ],
)
def test_parameters_are_checked(given, match):
    with pytest.raises(ConfigError, match=match):
        from_parameters(given)


def test_a_crop_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(ConfigError, match="36 pixels"):
        crop_size(config(tmp_path, crop=40), dataset().train)
    with pytest.raises(ConfigError, match="28 pixels are too small"):
        crop_size(config(tmp_path, crop=None), split(2, 0, size=28))
    assert crop_size(config(tmp_path, crop=None), split(2, 0, size=48)) == 44
    assert crop_size(config(tmp_path, crop=None), split(2, 0, size=100, channels=3)) == 92


def test_notebook_names_that_are_no_parameters_pass():
    assert (
        from_parameters({"In": [], "Out": {}, "_i": "", "__name__": "x", "print": print, "aug": "mixup"}).aug
        == "mixup"
    )
