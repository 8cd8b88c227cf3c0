"""What torchvision, timm and kornia promise of their MixUp and CutMix, asked of the transforms here.

The ideas are those of their tests, the code is not. A test's name says whose promise it checks. Some are
not kept, on purpose: an image may be its own partner (Algorithm 1 permutes); labels come back as `[B, K]`,
not as kornia's classes and λ; there is no pair mode of timm and no range of λ of kornia. Kornia's `data_keys`
are torchvision's mappings here."""
import pickle
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from batches import FORMS, PAIRS, faces, used
from PIL import Image
from timm.data import mixup as timm_mixup
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from mixcut.augment import TRANSFORMS, AugmentError, CutMix, Draw, MixCut, Mixup

each_form = pytest.mark.parametrize("aug, options", FORMS)
each = pytest.mark.parametrize("aug", TRANSFORMS)


def same(one, other):
    """Whether two pairs of images and labels are equal, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def given(lam, order, box=(0, 0, 0, 0)):
    """A draw with this λ, these partners and this box, for images of 12 × 12 pixels."""
    lam = torch.tensor([lam], dtype=torch.float64)
    return Draw(lam >= 0, lam, order, torch.tensor([box]), 1 - lam, (12, 12))


# --- torchvision: TestCutMixMixUp, TestSmoke and the labels_getter of test_transforms_v2.py

WAYS = {"after the loader": lambda mixer, data: mixer(*next(iter(DataLoader(data, 6)))),
        "after it, packed": lambda mixer, data: mixer(next(iter(DataLoader(data, 6)))),
        "as collate_fn": lambda mixer, data: mixer(*default_collate(list(data))),
        "as collate_fn, packed": lambda mixer, data: mixer(default_collate(list(data)))}


@pytest.mark.parametrize("way", WAYS)
@each_form
def test_torchvision_after_the_loader_or_in_it(aug, options, way):
    images, soft = WAYS[way](used(aug, **options), TensorDataset(*faces()))
    assert same((images, soft), used(aug, **options)(*faces()))
    assert images.shape == (6, 3, 12, 12) and soft.shape == (6, 4) and ((soft > 0).sum(1) <= 2).all()
    assert torch.allclose(soft.sum(1), torch.ones(6))


@pytest.mark.parametrize("kind", [tuple, list, dict])
@each
def test_torchvision_keeps_the_structure_and_every_other_part(aug, kind):
    images, labels = faces()
    parts = {"image": images, "labels": labels, "name": "a", "none": None, "object": object(),
             "tensor": torch.empty(5), "array": np.empty(5)}
    new = used(aug)(parts if kind is dict else kind(parts.values()))
    assert type(new) is kind and (kind is not dict or list(new) == list(parts))
    new = list(new.values() if kind is dict else new)
    assert same(new[:2], used(aug)(images, labels))
    assert all(a is b for a, b in zip(new[2:], list(parts.values())[2:], strict=True))


@pytest.mark.parametrize("key", ["labels", "LABELS", "LaBeL", "any_Label_of_it"])
def test_torchvision_finds_labels_by_name_or_by_function(key):
    images, labels = faces()
    plain = used("mixcut")(images, labels)
    for other in ({}, {"label_name": "text"} if key.lower() == "labels" else {}):  # `labels` wins
        assert torch.equal(used("mixcut")({**other, "image": images, key: labels})[key], plain[1])
        assert torch.equal(used("mixcut")((images, {**other, key: labels}))[1][key], plain[1])
    mixer = used("mixcut", labels_getter=lambda batch: batch["target"][key])
    batch = mixer({"x": images, "target": {key: labels, "box": "kept"}})
    assert same((batch["x"], batch["target"][key]), plain) and batch["target"]["box"] == "kept"


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@each_form
def test_torchvision_keeps_tv_tensors(aug, options, gamma):
    options = options if aug == "baseline" else options | {"gamma": gamma}
    images, labels = faces()
    plain = used(aug, **options)(images, labels)
    image, soft = used(aug, **options)(tv_tensors.Image(images), labels)
    assert type(image) is tv_tensors.Image and same((image.as_subclass(torch.Tensor), soft), plain)
    video = tv_tensors.Video(images[:, None].expand(-1, 5, -1, -1, -1).clone())
    frames, _ = used(aug, **options)(video, labels)
    assert type(frames) is tv_tensors.Video and all(torch.equal(frames[:, k], plain[0]) for k in range(5))


def test_torchvision_changes_all_images_of_a_batch_alike():
    images, labels = faces()
    mixer = used("mixcut", labels_getter=lambda batch: batch[2])
    one, two, _ = mixer(tv_tensors.Image(images), tv_tensors.Image(images.clone()), labels)
    assert torch.equal(one, two) and not torch.equal(one, images)
    with pytest.raises(AugmentError, match="different sizes"):
        mixer(tv_tensors.Image(images), tv_tensors.Image(images[..., :7]), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@each_form
def test_torchvision_keeps_the_dtype(aug, options, dtype):
    images, labels = faces()
    mixed, soft = used(aug, **options)(images.to(dtype), labels)
    exact, _ = used(aug, **options)(images.to(dtype).double(), labels)
    assert mixed.dtype == dtype and soft.dtype == torch.float32
    assert torch.allclose(mixed.double(), exact, atol=2 * torch.finfo(dtype).eps)
    own = used(aug, **options)(images, torch.eye(4, dtype=dtype)[labels])[1]
    assert own.dtype == torch.promote_types(dtype, torch.float32) and torch.allclose(own.float(), soft)


@each
def test_torchvision_keeps_the_device(aug):
    images, labels = faces()
    options = {"value": 0.0} if aug in ("random-erasing", "hide-and-seek") else {}
    plain = used(aug, **options)(images, labels)
    mixed, soft = used(aug, **options)(images.to("meta"), labels)  # meta stands for a GPU
    assert mixed.device.type == "meta" and torch.equal(soft, plain[1])
    mixed, soft = used(aug, **options)(images, labels.to("meta"))
    assert soft.device.type == "meta" and torch.equal(mixed, plain[0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@each
def test_torchvision_one_hot_labels_are_the_same_as_classes(aug, dtype):
    images, labels = faces()
    assert same(used(aug)(images, one_hot(labels, 4).to(dtype)), used(aug)(images, labels))


@pytest.mark.parametrize("copied", [lambda mixer: pickle.loads(pickle.dumps(mixer)), deepcopy])
@each_form
def test_torchvision_pickles_and_copies_go_on_alike(aug, options, copied):
    mixer = used(aug, **options)
    mixer(*faces())
    twin = copied(mixer)
    assert repr(twin) == repr(mixer) and same(twin(*faces()), mixer(*faces()))


def test_torchvision_inside_random_choice_and_compose():
    images, labels = faces()
    torch.manual_seed(0)
    mixers = [MixCut(num_classes=4, p=1.0), v2.CutMix(num_classes=4), v2.MixUp(num_classes=4)]
    for _ in range(20):
        mixed, soft = v2.RandomChoice(mixers)(images, labels)
        assert mixed.shape == images.shape and torch.allclose(soft.sum(1), torch.ones(6))
    both = v2.Compose([v2.Normalize([0.5] * 3, [0.2] * 3), used("mixcut"), used("cutmix")])
    mixed, soft = both(tv_tensors.Image(images), labels)
    assert type(mixed) is tv_tensors.Image and mixed.min() < 0 and torch.allclose(soft.sum(1), torch.ones(6))


@each_form
def test_torchvision_a_last_batch_of_one_comes_back_unmixed(aug, options):
    images, labels = faces(1)
    (new, soft), drawn = used(aug, **options, return_draw=True)(images, labels)
    assert new.shape == images.shape and torch.equal(soft, one_hot(labels, 4).float())
    if aug in PAIRS:
        assert torch.equal(new, images) and not drawn.used.any()
    assert (used("cutout", beta=1.0)(images, labels)[0] == 0).any()  # which needs no partner


IMAGES, LABELS = faces(4)
BOXES = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(12, 12))


@pytest.mark.parametrize("batch, match", [
    ((Image.new("L", (4, 4)), torch.tensor([0])), "PIL"),
    ((IMAGES, BOXES, LABELS), "BoundingBoxes"),
    (({"image": IMAGES, "other": 3},), "no labels among image, other"),
    ((IMAGES,), "images and labels"),
    ((IMAGES, "text"), "labels must be a tensor"),
    ((IMAGES, [0, 1, 2, 3]), "labels must be a tensor"),
    ((IMAGES, LABELS.view(4, 1, 1)), "labels must be a tensor"),
    ((IMAGES, {"labels": [0] * 4}), "images and labels"),
    ((IMAGES, torch.ones(4, 7) / 7), "7 columns, but num_classes=4"),
    ((IMAGES, LABELS.int()), "int32"),
    ((IMAGES, LABELS.float()), "float32"),
    ((IMAGES, LABELS + 1), "label 4 is out of range"),
    ((IMAGES, LABELS - 1), "label -1 is out of range"),
    ((IMAGES, LABELS[:3]), "4 images but 3 labels"),
    ((IMAGES[0], LABELS), "[B, C, H, W]"),
    ((IMAGES[None], LABELS), "[B, C, H, W]"),
    ((list(IMAGES), LABELS), "after batching"),
    ((tv_tensors.Video(IMAGES), LABELS), "[B, C, H, W]"),
    ((tv_tensors.Image(IMAGES.int()), LABELS), "int32"),
    ((IMAGES.short(), LABELS), "int16"),
])
@each
def test_torchvision_unusable_batches_are_named(aug, batch, match):
    with pytest.raises(AugmentError, match=re.escape(match)):
        used(aug)(*batch)


@pytest.mark.parametrize("kind, theirs", [(Mixup, v2.MixUp), (CutMix, v2.CutMix)])
def test_torchvision_gives_the_same_for_the_same_draw(kind, theirs):
    images, labels = faces(4)
    mixer, order = theirs(num_classes=4), torch.tensor([3, 0, 1, 2])
    params = {"labels": labels, "batch_size": 4} | mixer.make_params([images])
    left, top, right, bottom = params.get("box", (0, 0, 0, 0))
    drawn = given(params.get("lam", params.get("lam_adjusted")), order, (top, bottom, left, right))
    wanted = mixer.transform(images, params), mixer.transform(labels, params)
    for one, other in zip(kind().apply(images, one_hot(labels, 4).float(), drawn), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


# --- timm: Mixup and FastCollateMixup, and test_multilabel.py

@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_timm_gives_the_same_for_the_same_draw(kind, smoothing, monkeypatch):
    images, labels = faces(4)
    box, area = (2, 8, 5, 12), 42 / 144
    theirs = timm_mixup.Mixup(num_classes=4, label_smoothing=smoothing)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (1 - area, kind is CutMix))
    monkeypatch.setattr(timm_mixup, "rand_bbox", lambda *_, **__: box)
    soft = (1 - smoothing) * one_hot(labels, 4) + smoothing / 4
    found = kind().apply(images, soft, given(1 - area, torch.arange(4).flip(0), box))
    for one, other in zip(found, theirs(images.clone(), labels), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (3, 3, 44, 44), (7, 1, 31, 48), (33, 4, 5, 3)])
@each_form
def test_timm_soft_labels_sum_to_one_in_odd_batches_too(aug, options, shape):
    images, labels = faces(*shape)
    mixed, soft = used(aug, **options)(images, labels)
    assert mixed.shape == shape and 0 <= mixed.min() and mixed.max() <= 1
    assert soft.shape == (len(images), 4) and torch.allclose(soft.sum(1), torch.ones(len(images)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("aug, options", [form for form in FORMS if form[0] in (*PAIRS, "cutout")])
def test_timm_labels_are_the_shares_of_what_is_seen(aug, options, seed):
    """λ is the share of the image itself, for a batch or each element; CutMix's follows the clipped patch."""
    shades = torch.tensor([0.1, 0.3, 0.6, 1.0])
    mixed, soft = used(aug, seed, **options)(shades.view(4, 1, 1, 1).expand(4, 1, 40, 30), torch.arange(4))
    seen = torch.stack([image[image > 0].mean() for image in mixed])  # not what is erased
    assert torch.allclose(seen, soft @ shades, atol=1e-5)


@each_form
def test_timm_mixes_multi_hot_labels_that_need_not_sum_to_one(aug, options):
    images, _ = faces()
    several = torch.tensor([[0.0] * 4, [1, 1, 0, 0], [1] * 4, [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]])
    (_, soft), drawn = used(aug, **options, return_draw=True)(images, several)
    lam, order = (drawn.lam[:, None].float(), drawn.order) if aug in PAIRS else (1.0, torch.arange(6))
    assert torch.allclose(soft, lam * several + (1 - lam) * several[order], atol=1e-6)


@pytest.mark.parametrize("aug", PAIRS)
def test_timm_labels_may_be_smoothed_before_or_in_the_loss(aug):
    images, labels = faces()
    before = used(aug)(images, 0.9 * one_hot(labels, 4) + 0.1 / 4)[1]
    soft, logits = used(aug)(images, labels)[1], images.flatten(1)[:, :4]
    assert torch.allclose(before, 0.9 * soft + 0.1 / 4) and torch.allclose(before.sum(1), torch.ones(6))
    assert torch.allclose(cross_entropy(logits, before), cross_entropy(logits, soft, label_smoothing=0.1))


@each_form
def test_timm_bytes_are_mixed_as_floats_and_rounded(aug, options):
    images, labels = faces()
    images = (255 * images).byte()
    mixed, soft = used(aug, **options)(images, labels)
    exact, _ = used(aug, **options)(images.double() / 255, labels)
    assert mixed.dtype == torch.uint8 and soft.dtype == torch.float32
    assert (mixed.double() - 255 * exact).abs().max() <= 0.5001


# --- kornia: RandomMixUpV2, RandomCutMixV2 and their parameter generators

@pytest.mark.parametrize("aug", PAIRS)
def test_kornia_draws_are_shared_by_the_batch_or_each_images_own(aug):
    for per_sample, n in ((False, 1), (True, 50)):  # kornia's same_on_batch=True and False
        drawn = used(aug, per_sample=per_sample).draw(50, 64, 64)
        assert drawn.lam.shape == (n,) and drawn.box.shape == (n, 4)
        assert len(drawn.lam.unique()) > 0.9 * n and 0 <= drawn.lam.min() <= drawn.lam.max() <= 1
        assert sorted(drawn.order.tolist()) == list(range(50))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("aug, options", FORMS[1:])
def test_kornia_p_is_the_probability_of_use_and_applied_once(aug, options, p):
    mixer = used(aug, gamma=p, **options)
    coins = torch.cat([mixer.draw(4, 6, 6).used for _ in range(600)]).double()
    assert abs(coins.mean() - p) <= 5 * (p * (1 - p) / len(coins)) ** 0.5
    if p == 0:
        assert same(mixer(*faces()), used("baseline")(*faces()))


@pytest.mark.parametrize("aug, per_sample", [(aug, each) for aug in PAIRS for each in (False, True)])
def test_kornia_a_given_lambda_is_kept_and_its_limits_are_the_two_images(aug, per_sample):
    images, labels = faces()
    options = {"per_sample": per_sample, "return_draw": True} | ({"beta": 0.0} if aug == "mixcut" else {})
    assert same(used(aug, lam=1.0, **options)(images, labels)[0], used("baseline")(images, labels))
    if aug != "cutmix":  # whose square is clipped
        (mixed, soft), drawn = used(aug, lam=0.0, **options)(images, labels)
        assert same((mixed, soft), used("baseline")(images[drawn.order], labels[drawn.order]))
        assert (used(aug, lam=0.3, **options).draw(6, 12, 12).lam == 0.3).all()


@each_form
def test_kornia_an_empty_batch_comes_back_empty(aug, options):
    images, labels = faces()
    none, soft = used(aug, **options)(images[:0], labels[:0])
    assert none.shape == (0, 3, 12, 12) and soft.shape == (0, 4)


@pytest.mark.parametrize("own", [False, True])
@each_form
def test_kornia_a_seed_repeats(aug, options, own):
    def result(seed):
        torch.manual_seed(0 if own else seed)
        state = torch.get_rng_state()
        found = used(aug, seed, **options, **({} if own else {"generator": None}))(*faces())
        assert not own or torch.equal(torch.get_rng_state(), state)  # torch's own generator is left alone
        return found

    assert same(result(1), result(1)) and (aug == "baseline" or not torch.equal(result(1)[0], result(2)[0]))


@each_form
def test_kornia_gradients_pass_through(aug, options):
    images, labels = faces(3, 2, 4, 4)  # one channel is channels_last too
    options = options | ({"value": 0.0} if aug == "hide-and-seek" else {})  # its mean is in float32
    soft = one_hot(labels, 4).double().requires_grad_()
    inputs = images.double().requires_grad_(), soft
    assert torch.autograd.gradcheck(lambda *batch: used(aug, **options)(*batch), inputs)
