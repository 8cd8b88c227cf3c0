"""Mixers under what clients and torchvision's own tests bring.

Labels and images of every kind, default devices and types, compilers, bad parameters."""

import subprocess
import sys
from collections import UserDict

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

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
)

MIXERS = [name for name in TRANSFORMS if name != "baseline"]
PAIRS = ["mixup", "cutmix", "mixcut"]
FORMS = [(aug, {}) for aug in TRANSFORMS] + [(aug, {"per_sample": True}) for aug in ("cutout", *PAIRS)]


def faces(n=6, channels=3, size=12):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n)), torch.arange(
        n
    ) % 4


def used(aug, **options):
    return make_transform(
        aug,
        4,
        **{
            "gamma": None if aug == "baseline" else 1.0,
            "generator": torch.Generator().manual_seed(1),
            **options,
        },
    )


@pytest.mark.parametrize("aug", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_one_hot_labels_of_any_type(aug, dtype):
    images, labels = faces()
    assert torch.equal(used(aug)(images, torch.eye(4)[labels].to(dtype))[1], used(aug)(images, labels)[1])


@pytest.mark.parametrize("aug", TRANSFORMS)
def test_multi_hot_labels_need_not_sum_to_one(aug):
    images, _ = faces()
    several = torch.tensor(
        [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]]
    )
    (_, soft), drawn = used(aug, return_draw=True)(images, several)
    lam = drawn.lam.item() if aug in PAIRS else 1.0
    order = drawn.order if aug in PAIRS else torch.arange(6)
    assert torch.allclose(soft, (lam * several + (1 - lam) * several[order]).float(), atol=1e-6)


def test_float64_soft_labels_stay_float64():
    images, labels = faces()
    assert Mixup(num_classes=4)(images, torch.eye(4, dtype=torch.float64)[labels])[1].dtype == torch.float64


@pytest.mark.parametrize("aug", TRANSFORMS)
def test_labels_on_another_device_than_the_images(aug):
    images, labels = faces()
    options = {"value": 0.0} if aug in ("random-erasing", "hide-and-seek") else {}
    mixed, soft = used(aug, **options)(images.to("meta"), labels)  # meta stands for a GPU
    assert mixed.device.type == "meta" and torch.equal(soft, used(aug)(images, labels)[1])
    mixed, soft = used(aug)(images, labels.to("meta"))
    assert soft.device.type == "meta" and torch.equal(mixed, used(aug)(images, labels)[0])


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
def test_channels_last_is_kept(aug, options):
    images, labels = faces()
    mixed, _ = used(aug, **options)(images.contiguous(memory_format=torch.channels_last), labels)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(mixed, used(aug, **options)(images, labels)[0], atol=1e-6)


@pytest.mark.parametrize("aug", TRANSFORMS)
def test_what_comes_back_is_never_the_callers_own_tensor(aug):
    images, labels = faces()
    soft = torch.eye(4)[labels]
    for gamma in (None,) if aug == "baseline" else (0.0, 1.0):
        kept, kept_soft = images.clone(), soft.clone()
        new, mixed = used(aug, gamma=gamma)(images, soft)
        new.zero_(), mixed.zero_()
        assert torch.equal(images, kept) and torch.equal(soft, kept_soft)


@pytest.mark.parametrize("aug", MIXERS)
def test_gradients_reach_the_images(aug):
    images, labels = faces()
    mixed, _ = used(aug)(images.requires_grad_(), labels)
    mixed.sum().backward()
    assert images.grad is not None and (images.grad != 0).any()


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


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: MixCut(num_classes=0), "num_classes = 0"),
        (lambda: MixCut(num_classes="4"), "num_classes = '4'"),
        (lambda: MixCut(num_classes=True), "num_classes"),
        (lambda: MixCut(p=None), "p = None"),
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
    ],
)
def test_parameters_fail_at_construction(make, match):
    with pytest.raises(AugmentError, match=match):
        make()


@pytest.mark.parametrize("kind", [MixCut, CutMix, Mixup, Cutout, RandomErasing, HideAndSeek])
def test_a_wrong_keyword_names_the_class_that_was_called(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}.*'gamma'"):
        kind(num_classes=4, gamma=0.5)


@pytest.mark.parametrize("aug, options", FORMS)
def test_bytes_are_mixed_as_floats_and_rounded(aug, options):
    images, labels = faces()
    images = (255 * images).byte()
    mixed, soft = used(aug, **options)(images, labels)
    exact, same = used(aug, **options)(images.double() / 255, labels)
    assert mixed.dtype == torch.uint8 and torch.equal(soft, same)
    assert (mixed.double() - 255 * exact).abs().max() <= 0.5001


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


def test_a_tv_tensor_that_is_not_used_stays_one():
    images, labels = faces()
    same, _ = MixCut(num_classes=4, p=0.0)(tv_tensors.Image(images), labels)
    assert type(same) is tv_tensors.Image and torch.equal(same, images)


def test_from_the_package_itself():
    code = "from mixcut import MixCut; print(MixCut.__module__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "mixcut.augment", found.stderr
    with pytest.raises(AttributeError, match="mixcut.*MixCat"):
        _ = mixcut.MixCat
