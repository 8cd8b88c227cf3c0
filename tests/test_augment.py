"""Transforms at the edges that the notebook does not show: dtypes, layouts, shapes, fixed values."""

import re

import pytest
import torch

from mixcut.augment import (
    TRANSFORMS,
    AugmentError,
    CutMix,
    Cutout,
    MixCut,
    Mixup,
    make_transform,
    random_crop,
)

ALL = list(TRANSFORMS)


def batch(n=6, channels=1, height=44, width=44, classes=8):
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, channels, height, width, generator=generator), torch.randint(
        classes, (n,), generator=generator
    )


def make(aug, seed=0, **options):
    gamma = None if aug == "baseline" else 1.0
    return make_transform(aug, 8, gamma=gamma, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("aug", ALL)
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (3, 3, 44, 44), (7, 1, 31, 48), (33, 4, 5, 3)])
def test_any_shape(aug, shape):
    images, labels = batch(*shape)
    mixed, soft = make(aug)(images, labels)
    assert mixed.shape == images.shape and mixed.dtype == images.dtype
    assert soft.shape == (len(images), 8) and torch.allclose(soft.sum(1), torch.ones(len(images)))
    assert mixed.min() >= 0 and mixed.max() <= 1


@pytest.mark.parametrize("aug", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_image_dtypes_are_kept_and_labels_are_float32(aug, dtype):
    images, labels = batch()
    mixed, soft = make(aug)(images.to(dtype), labels)
    assert mixed.dtype == dtype and soft.dtype == torch.float32


@pytest.mark.parametrize("aug", ALL)
def test_input_is_untouched_and_layout_does_not_matter(aug):
    images, labels = batch(channels=3)
    before = images.clone()
    plain = make(aug)(images, labels)
    assert torch.equal(images, before)
    strided = make(aug)(images.contiguous(memory_format=torch.channels_last), labels)
    sliced = make(aug)(torch.cat([images, images], dim=3)[..., :44], labels)
    assert torch.equal(plain[0], strided[0]) and torch.equal(plain[0], sliced[0])


@pytest.mark.parametrize("aug", ALL)
def test_soft_labels_in_are_the_same_as_classes(aug):
    images, labels = batch()
    soft = torch.nn.functional.one_hot(labels, 8).float()
    assert torch.equal(make(aug)(images, labels)[1], make(aug)(images, soft)[1])


@pytest.mark.parametrize("per_sample", [False, True])
def test_one_generator_state_one_result(per_sample):
    images, labels = batch()
    first, second, other = (make("mixcut", seed, per_sample=per_sample)(images, labels) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_global_generator_is_not_touched():
    images, labels = batch()
    state = torch.get_rng_state()
    for aug in ALL:
        make(aug)(images, labels)
    assert torch.equal(state, torch.get_rng_state())


def test_limits_of_the_parameters():
    images, labels = batch()
    assert torch.equal(MixCut(num_classes=8, p=1.0, lam=1.0, beta=0.0)(images, labels)[0], images)
    assert torch.equal(MixCut(num_classes=8, p=0.0)(images, labels)[0], images)
    assert torch.equal(CutMix(num_classes=8, p=1.0, lam=1.0)(images, labels)[0], images)
    drawn = MixCut(p=1.0, lam=0.0, beta=1.0).draw(6, 44, 44)
    assert (drawn.lam == 0).all() and (drawn.box[:, 1] - drawn.box[:, 0] >= 22).all()


def test_baseline_only_softens():
    images, labels = batch()
    same, soft = make("baseline")(images, labels)
    assert torch.equal(same, images) and torch.equal(soft.argmax(1), labels)


@pytest.mark.parametrize("kind", [Mixup, CutMix, MixCut])
def test_a_last_batch_of_one_passes_through_unmixed(kind):
    images, labels = batch(1)
    (same, soft), drawn = kind(num_classes=8, p=1.0, return_draw=True)(images, labels)
    assert torch.equal(same, images) and soft.argmax(1) == labels and soft.sum() == 1 and not drawn.used.any()
    none, soft = kind(num_classes=8)(images[:0], labels[:0])
    assert none.shape == (0, 1, 44, 44) and soft.shape == (0, 8)
    assert (Cutout(num_classes=8, beta=1.0)(images, labels)[0] == 0).any()  # which needs no partner


@pytest.mark.parametrize(
    "images, labels, match",
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.int16), torch.zeros(4).long(), "int16"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int32), torch.zeros(4).long(), "int32"),
        (torch.zeros(4, 8, 8), torch.zeros(4).long(), "B, C, H, W"),
        ([torch.zeros(1, 8, 8)] * 4, torch.zeros(4).long(), "after batching"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int32), "int32"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4), "float32"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 8]), "label 8 is out of range"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, -1]), "label -1 is out of range"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(5).long(), "4 images but 5 labels"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 8), "tensor"),
        (torch.zeros(4, 1, 8, 8), torch.ones(4, 7) / 7, "7 columns"),
        (torch.zeros(4, 1, 8, 8), [0, 1, 2, 3], "tensor"),
    ],
)
def test_unusable_batches_are_named(images, labels, match):
    for aug in ALL:
        with pytest.raises(AugmentError, match=re.escape(match)):
            make(aug)(images, labels)


@pytest.mark.parametrize(
    "options",
    [{"p": 1.1}, {"p": -0.1}, {"p": True}, {"lam": 2}, {"beta": float("nan")}, {"alpha": 0}, {"lam": "half"}],
)
def test_unusable_parameters_are_named(options):
    [name] = options
    with pytest.raises(AugmentError, match=name):
        MixCut(num_classes=8, **options)


def test_classes_must_be_known():
    images, labels = batch()
    with pytest.raises(AugmentError, match="num_classes"):
        MixCut()(images, labels)


@pytest.mark.parametrize(
    "aug, options",
    [
        ("baseline", {"lam": 0.5}),
        ("baseline", {"gamma": 0.5}),
        ("cutout", {"lam": 0.5}),
        ("mixup", {"beta": 0.5}),
        ("cutmix", {"beta": 0.5}),
        ("mixcutt", {}),
    ],
)
def test_a_method_refuses_what_it_does_not_have(aug, options):
    with pytest.raises(AugmentError):
        make_transform(aug, 8, **options)


def test_crops_are_uniform_and_half_are_mirrored():
    images = torch.arange(48).expand(20_000, 1, 48, 48)
    first, last = (random_crop(images, 44, torch.Generator().manual_seed(0))[:, 0, 0, i] for i in (0, -1))
    left = torch.minimum(first, last)
    assert torch.allclose(left.bincount(minlength=5) / 20_000, torch.full((5,), 0.2), atol=0.015)
    assert abs((first > last).double().mean() - 0.5) < 0.015
