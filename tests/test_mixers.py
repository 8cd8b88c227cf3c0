"""Crops and mixers where clients use them; what other libraries promise of theirs is in `test_peers`.

Default devices and types, layouts, compilers, workers, bad parameters."""
import subprocess
import sys
from collections import UserDict
from inspect import signature

import numpy as np
import pytest
import torch
from batches import FORMS, faces, used
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset, default_collate

import mixcut
from mixcut.augment import (
    TRANSFORMS,
    AugmentError,
    CutMix,
    Cutout,
    HideAndSeek,
    MixCut,
    Mixup,
    RandomErasing,
    make_transform,
    random_crop,
)


def test_crops_are_uniform_and_half_are_mirrored():
    images = torch.arange(48).expand(20_000, 1, 48, 48)
    first, last = (random_crop(images, 44, torch.Generator().manual_seed(0))[:, 0, 0, i] for i in (0, -1))
    left = torch.minimum(first, last)
    assert torch.allclose(left.bincount(minlength=5) / 20_000, torch.full((5,), 0.2), atol=0.015)
    assert abs((first > last).double().mean() - 0.5) < 0.015


def test_baseline_only_softens():
    images, labels = faces()
    same, soft = used("baseline")(images, labels)
    assert torch.equal(same, images) and torch.equal(soft, torch.eye(4)[labels])


class NoFloat64(TorchDispatchMode):
    """Apple's GPU has no float64, so no operation on images or labels may make one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        there = [given for given in args if isinstance(given, torch.Tensor) and given.ndim > 1]
        there = [given for given in there if given.shape[-2:] in ((12, 12), (6, 4))]
        assert not there or not isinstance(made, torch.Tensor) or made.dtype != torch.float64, function
        return made


@pytest.mark.parametrize("scale", [torch.Tensor.float, lambda images: (255 * images).byte()])
@pytest.mark.parametrize("aug, options", FORMS)
def test_no_float64_where_the_images_are(aug, options, scale):
    images, labels = faces()
    images = scale(images)
    with NoFloat64():
        used(aug, **options)(images, labels)


@pytest.mark.parametrize("aug, options", FORMS)
@pytest.mark.parametrize("own", [False, True])
def test_draws_follow_neither_the_default_device_nor_the_default_dtype(aug, options, own):
    def result():
        torch.manual_seed(5)
        generator = torch.Generator("cpu").manual_seed(5) if own else None
        return used(aug, **options, generator=generator)(images, labels)

    images, labels = faces()
    plain = result()
    try:
        torch.set_default_device("meta")
        other = result()
        torch.set_default_device(None)
        torch.set_default_dtype(torch.bfloat16)
        narrow = result()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for found in (other, narrow):
        assert (
            torch.equal(found[0], plain[0])
            and torch.equal(found[1], plain[1])
            and found[1].dtype == torch.float32
        )


@pytest.mark.parametrize("aug, options", FORMS)
def test_layout_does_not_matter_and_channels_last_is_kept(aug, options):
    images, labels = faces()
    plain = used(aug, **options)(images, labels)[0]
    last, _ = used(aug, **options)(images.contiguous(memory_format=torch.channels_last), labels)
    sliced, _ = used(aug, **options)(torch.cat([images, images], dim=3)[..., :12], labels)
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(sliced, plain)
    assert torch.allclose(last, plain, atol=1e-6)


@pytest.mark.parametrize("aug", TRANSFORMS)
def test_what_comes_back_is_never_the_callers_own_tensor(aug):
    images, labels = faces()
    soft = torch.eye(4)[labels]
    for gamma in (None,) if aug == "baseline" else (0.0, 1.0):
        kept, kept_soft = images.clone(), soft.clone()
        new, mixed = used(aug, gamma=gamma)(images, soft)
        new.zero_(), mixed.zero_()
        assert torch.equal(images, kept) and torch.equal(soft, kept_soft)


def test_repr_says_the_parameters():
    said = repr(MixCut(num_classes=4, p=0.25, beta=0.5, per_sample=True))
    assert (
        said
        == "MixCut(num_classes=4, return_draw=False, alpha=1.0, per_sample=True, p=0.25, lam=None, beta=0.5)"
    )


def test_numbers_of_other_libraries_are_numbers():
    mixer = MixCut(num_classes=np.int64(4), p=np.float32(0.5), lam=np.float64(0.25), beta=1)
    assert (mixer.num_classes, mixer.p, mixer.lam, mixer.beta) == (4, 0.5, 0.25, 1.0) and type(
        mixer.p
    ) is type(mixer.beta) is float


@pytest.mark.parametrize("make, match", [
    (lambda: MixCut(num_classes=0), "num_classes = 0"),
    (lambda: MixCut(num_classes="4"), "num_classes = '4'"),
    (lambda: MixCut(num_classes=True), "num_classes"),
    (lambda: MixCut()(*faces()), "num_classes"),
    (lambda: MixCut(labels_getter="labels"), "labels_getter"),
    (lambda: MixCut(generator=42), "generator = 42"),
    (lambda: MixCut(num_classes=2)(torch.rand(2, 1, 8, 8), torch.rand(2)), "without num_classes"),
    (lambda: MixCut(p=None), "p = None"),
    (lambda: MixCut(p=1.1), "p = 1.1"),
    (lambda: MixCut(p=-0.1), "p = -0.1"),
    (lambda: MixCut(p=True), "p = True"),
    (lambda: MixCut(lam=2), "lam = 2"),
    (lambda: MixCut(lam="half"), "lam = 'half'"),
    (lambda: MixCut(beta=float("nan")), "beta = nan"),
    (lambda: MixCut(alpha=0), "alpha = 0"),
    (lambda: Mixup(alpha=float("inf")), "alpha"),
    (lambda: HideAndSeek(cells=2.5), "cells"),
    (lambda: HideAndSeek(hide=2), "hide"),
    (lambda: RandomErasing(share=0.5), "share"),
    (lambda: RandomErasing(share=(0.5, 0.1)), "share"),
    (lambda: RandomErasing(share=(0.5, 1.5)), "share"),
    (lambda: RandomErasing(ratio=(0, 1)), "ratio"),
    (lambda: RandomErasing(ratio=("a", 1)), "ratio"),
    (lambda: RandomErasing(value="random"), "value"),
    (lambda: RandomErasing(value=(0.1, None, 0.2)), "value"),
    (lambda: RandomErasing(value=()), "value"),
    (lambda: HideAndSeek(value=float("nan")), "value"),
    (lambda: make_transform("mixcutt", 4), "aug = 'mixcutt'"),
    (lambda: make_transform("mixup", 4, beta=0.5), "mixup has no beta"),
    (lambda: make_transform("cutmix", 4, beta=0.5), "cutmix has no beta"),
    (lambda: make_transform("cutout", 4, lam=0.5), "cutout has no lam"),
    (lambda: make_transform("baseline", 4, lam=0.5), "baseline has no lam"),
    (lambda: make_transform("baseline", 4, gamma=0.5), "baseline has no gamma"),
])
def test_unusable_parameters_are_named(make, match):
    with pytest.raises(AugmentError, match=match):
        make()


def test_yes_or_no_for_one_logit():
    assert MixCut()(torch.rand(2, 1, 8, 8), torch.tensor([0.0, 1.0])[:, None])[1].shape == (2, 1)


@pytest.mark.parametrize("kind", [MixCut, CutMix, Mixup, Cutout, RandomErasing, HideAndSeek])
def test_a_wrong_keyword_names_the_class_that_was_called(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}.*'gamma'"):
        kind(num_classes=4, gamma=0.5)


@pytest.mark.parametrize("aug", ["mixup", "cutmix", "mixcut", "cutout"])
def test_the_whole_compiles_without_a_break(aug):
    torch.compiler.reset()
    images, labels = faces()
    mixed, soft = torch.compile(make_transform(aug, 4, 1.0), fullgraph=True, backend="aot_eager")(
        images, labels
    )
    assert (
        mixed.shape == images.shape
        and not torch.equal(mixed, images)
        and torch.allclose(soft.sum(1), torch.ones(6))
    )


@pytest.mark.parametrize("aug", ["mixup", "mixcut", "cutout"])  # of torchvision's two, MixUp can be
def test_the_whole_can_be_exported(aug):
    images, labels = faces()
    mixed, soft = torch.export.export(make_transform(aug, 4, 1.0), (images, labels)).module()(images, labels)
    assert (
        mixed.shape == images.shape
        and not torch.equal(mixed, images)
        and torch.allclose(soft.sum(1), torch.ones(6))
    )


@pytest.mark.parametrize("kind", [RandomErasing, HideAndSeek])
def test_a_value_for_each_channel(kind):
    images, labels = faces()
    changed, _ = kind(num_classes=4, p=1.0, value=(2.0, 3.0, 4.0))(images, labels)
    where = changed[:, :1] >= 2
    assert where.any() and torch.equal(
        changed, torch.where(where, torch.tensor([2.0, 3.0, 4.0])[:, None, None], images)
    )
    with pytest.raises(AugmentError, match="2 channels"):
        kind(num_classes=4, p=1.0, value=(0.1, 0.2))(images, labels)


@pytest.mark.parametrize("height, width", [(12, 12), (6, 20), (20, 6)])
def test_the_area_is_right_where_no_rectangle_fits(height, width):
    images = torch.rand(9, 1, height, width)
    (changed, _), drawn = RandomErasing(
        p=1.0, share=(1.0, 1.0), ratio=(3.0, 3.0), value=2.0, return_draw=True
    )(images, torch.ones(9, 4))
    assert torch.allclose((changed == 2).double().mean((1, 2, 3)), drawn.area) and (drawn.area > 0).any()


class Features(UserDict):
    """As Hugging Face's BatchFeature is one."""

    def __init__(self, data=None, tensor_type=None):
        super().__init__(data)
        self.tensor_type = tensor_type


def test_a_batch_feature_is_a_batch():
    images, labels = faces()
    batch = Features({"pixel_values": images, "labels": labels, "name": "kept"}, "pt")
    new, plain = used("mixcut")(batch), used("mixcut")(images, labels)
    assert (
        type(new) is Features
        and new.tensor_type == "pt"
        and new["name"] == "kept"
        and batch["labels"] is labels
    )
    assert torch.equal(new["pixel_values"], plain[0]) and torch.equal(new["labels"], plain[1])
    with pytest.raises(AugmentError, match="Features"):
        MixCut(num_classes=4)(batch, labels)  # within another batch it is named for what it is


def test_from_the_package_itself():
    code = "from mixcut import MixCut; print(MixCut.__module__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "mixcut.augment", found.stderr
    with pytest.raises(AttributeError, match="mixcut.*MixCat"):
        _ = mixcut.MixCat


class Collate:
    def __init__(self, mixer):
        self.mixer = mixer

    def __call__(self, items):
        return self.mixer(*default_collate(items))


@pytest.mark.parametrize("aug, options", FORMS)
def test_the_tensor_part_compiles_without_a_break(aug, options):
    images, labels = faces()
    torch.compiler.reset()
    mixer, soft = used(aug, **options), torch.eye(4)[labels]
    drawn = mixer.draw(6, 12, 12)
    mixer.value = 0.0  # Random Erasing's noise is drawn and not computed
    compiled = torch.compile(lambda x, y: mixer.apply(x, y, drawn), fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(images, soft), mixer.apply(images, soft, drawn), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "start, own", [("fork", True), ("fork", False), ("spawn", True), ("forkserver", False)]
)
def test_workers_have_draws_of_their_own(start, own):
    def epochs(seed):
        mixer = used("mixcut", return_draw=True, **({} if own else {"generator": None}))
        loader = DataLoader(TensorDataset(*faces(24)), 4, num_workers=2, collate_fn=Collate(mixer),
                            multiprocessing_context=start, generator=torch.Generator().manual_seed(seed))
        return [drawn.lam.item() for _ in range(2) for _, drawn in loader]

    first = epochs(1)
    assert len(set(first)) == len(first) == 12  # neither workers nor epochs repeat one another
    if start == "fork":
        assert first == epochs(1) and not set(first) & set(epochs(2))


@pytest.mark.parametrize("aug, options", FORMS[1:])
def test_it_says_what_it_did(aug, options):
    images, labels = faces(8, 1, 44, 44)
    plain = used(aug, **options)(images, labels)
    (mixed, soft), drawn = used(aug, **options, return_draw=True)(images, labels)
    assert torch.equal(mixed, plain[0]) and torch.equal(soft, plain[1]) and drawn.used.all()
    if aug in ("random-erasing", "hide-and-seek"):
        assert ((mixed != images).double().mean((1, 2, 3)) - drawn.area).abs().max() < 1e-3
    if aug in ("cutout", "mixcut"):
        assert ((mixed == 0).double().mean((1, 2, 3)) - drawn.area).abs().max() < 1e-9
    (same, _), drawn = used(aug, gamma=0.0, **options, return_draw=True)(images, labels)
    assert torch.equal(same, images) and not drawn.used.any()


def test_help_shows_every_parameter(capsys):
    help(MixCut)
    text = capsys.readouterr().out
    for name in (
        "num_classes",
        "labels_getter",
        "p: ",
        "lam: ",
        "beta: ",
        "per_sample",
        "generator",
        "return_draw",
        "alpha",
        "AugmentError",
        "[B, C, H, W]",
    ):
        assert name in text
    assert "beta" not in str(signature(Mixup)) and "lam" in str(signature(Mixup))
