"""The mixers where torchvision's v2.MixUp and v2.CutMix are used.

Any batch structure, tv_tensors, loaders and their workers, dtypes, compilers."""

import pickle
from copy import deepcopy
from inspect import signature

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from mixcut.augment import TRANSFORMS, AugmentError, MixCut, Mixup, make_transform

MIXERS = [name for name in TRANSFORMS if name != "baseline"]
FORMS = [(aug, {}) for aug in MIXERS] + [
    (aug, {"per_sample": True}) for aug in ("cutout", "mixup", "cutmix", "mixcut")
]


def faces(n=6, channels=3, size=20, seed=0, dtype=torch.float32):
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, size, size, generator=draws).to(dtype), torch.arange(n) % 4


def used(aug, seed=0, **options):
    return make_transform(
        aug,
        4,
        **({} if "gamma" in options else {"gamma": 1.0}),
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


class Faces(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        return torch.full((3, 8, 8), (i + 1) / 25), i % 4


class Collate:
    def __init__(self, mixer):
        self.mixer = mixer

    def __call__(self, items):
        return self.mixer(*default_collate(items))


class NoFloat64(TorchDispatchMode):
    """Apple's GPU has no float64, so no operation on images or labels may make one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        there = [given for given in args if isinstance(given, torch.Tensor) and given.ndim > 1]
        there = [given for given in there if given.shape[-2:] in ((20, 20), (6, 4))]
        assert not there or not isinstance(made, torch.Tensor) or made.dtype != torch.float64, function
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("aug, options", FORMS)
def test_no_float64_where_the_images_are(aug, options, dtype):
    with NoFloat64():
        used(aug, **options)(*faces(dtype=dtype))


@pytest.mark.parametrize("aug", MIXERS)
def test_a_pair_a_list_and_a_mapping_give_the_same(aug):
    images, labels = faces()
    pair = used(aug)(images, labels)
    assert isinstance(pair, tuple)
    as_list = used(aug)([images, labels])
    mapping = used(aug)({"name": ["a"] * 6, "image": images, "labels": labels, "weight": 3.5})
    assert isinstance(as_list, list) and list(mapping) == ["name", "image", "labels", "weight"]
    assert mapping["name"] == ["a"] * 6 and mapping["weight"] == 3.5
    for one, other in ((as_list[0], as_list[1]), (mapping["image"], mapping["labels"])):
        assert torch.equal(one, pair[0]) and torch.equal(other, pair[1])


@pytest.mark.parametrize("aug", MIXERS)
def test_labels_are_found_by_a_function(aug):
    images, labels = faces()
    found = make_transform(
        aug,
        4,
        1.0,
        generator=torch.Generator().manual_seed(0),
        labels_getter=lambda batch: batch["target"]["y"],
    )
    batch = found({"x": images, "target": {"y": labels, "box": "kept"}})
    plain = used(aug)(images, labels)
    assert (
        torch.equal(batch["x"], plain[0])
        and torch.equal(batch["target"]["y"], plain[1])
        and batch["target"]["box"] == "kept"
    )


@pytest.mark.parametrize("aug, options", FORMS)
def test_tv_tensors_stay_what_they_are(aug, options):
    images, labels = faces()
    plain = used(aug, **options)(images, labels)
    wrapped, soft = used(aug, **options)(tv_tensors.Image(images), labels)
    assert (
        type(wrapped) is tv_tensors.Image
        and torch.equal(wrapped.as_subclass(torch.Tensor), plain[0])
        and torch.equal(soft, plain[1])
    )
    video = tv_tensors.Video(images[:, None].expand(-1, 5, -1, -1, -1).clone())
    frames, _ = used(aug, **options)(video, labels)
    assert type(frames) is tv_tensors.Video and all(torch.equal(frames[:, k], plain[0]) for k in range(5))


def test_two_views_get_the_same_treatment():
    images, labels = faces()
    one, two, soft = MixCut(num_classes=4, p=1.0, labels_getter=lambda batch: batch[2])(
        tv_tensors.Image(images), tv_tensors.Image(images.clone()), labels
    )
    assert torch.equal(one, two) and not torch.equal(one, images) and soft.shape == (6, 4)
    with pytest.raises(AugmentError, match="different sizes"):
        MixCut(num_classes=4, labels_getter=lambda batch: batch[2])(
            tv_tensors.Image(images), tv_tensors.Image(images[..., :7]), labels
        )


def test_inside_torchvisions_random_choice_and_compose():
    images, labels = faces()
    torch.manual_seed(0)
    choice = v2.RandomChoice(
        [MixCut(num_classes=4, p=1.0), v2.CutMix(num_classes=4), v2.MixUp(num_classes=4)]
    )
    for _ in range(20):
        mixed, soft = choice(images, labels)
        assert (
            mixed.shape == images.shape
            and soft.shape == (6, 4)
            and torch.allclose(soft.sum(1), torch.ones(6))
        )
    mixed, soft = v2.Compose([v2.Normalize([0.5] * 3, [0.2] * 3), MixCut(num_classes=4, p=1.0)])(
        tv_tensors.Image(images), labels
    )
    assert type(mixed) is tv_tensors.Image and mixed.min() < 0


@pytest.mark.parametrize("aug, options", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(aug, dtype, options):
    images, labels = faces(dtype=dtype)
    mixed, soft = used(aug, **options)(images, labels)
    own = used(aug, **options)(images, torch.eye(4, dtype=dtype)[labels])[1]
    assert torch.allclose(own.float(), soft, atol=1e-2)
    assert own.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact, _ = used(aug, **options)(images.double(), labels)
    assert mixed.dtype == dtype and soft.dtype == torch.float32
    assert torch.allclose(mixed.double(), exact, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("aug, options", FORMS)
def test_the_tensor_part_compiles_without_a_break(aug, options):
    images, labels = faces()
    torch.compiler.reset()
    mixer, soft = used(aug, **options), torch.eye(4)[labels]
    drawn = mixer.draw(6, 20, 20)
    mixer.value = 0.0  # Random Erasing's noise is drawn and not computed
    compiled = torch.compile(lambda x, y: mixer.apply(x, y, drawn), fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(images, soft), mixer.apply(images, soft, drawn), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("aug", MIXERS)
def test_pickles_and_copies_go_on_alike(aug):
    mixer, batch = used(aug, seed=3), faces()
    mixer(*batch)
    for twin in (pickle.loads(pickle.dumps(mixer)), deepcopy(mixer)):
        assert repr(twin) == repr(mixer)
        for one, other in zip(deepcopy(mixer)(*batch), twin(*batch), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "start, own", [("fork", True), ("fork", False), ("spawn", True), ("forkserver", False)]
)
def test_workers_have_draws_of_their_own(start, own):
    def epochs(seed):
        mixer = MixCut(
            num_classes=4,
            p=1.0,
            generator=torch.Generator().manual_seed(5) if own else None,
            return_draw=True,
        )
        loader = DataLoader(
            Faces(),
            4,
            num_workers=2,
            collate_fn=Collate(mixer),
            multiprocessing_context=start,
            generator=torch.Generator().manual_seed(seed),
        )
        return [drawn.lam.item() for _ in range(2) for _, drawn in loader]

    first = epochs(1)
    assert (
        len(set(first)) == len(first) == 12
    )  # neither the two workers nor the two epochs repeat one another
    if start == "fork":
        assert first == epochs(1) and not set(first) & set(epochs(2))


@pytest.mark.parametrize("aug", MIXERS)
def test_it_says_what_it_did(aug):
    images, labels = faces(n=8, channels=1, size=44)
    plain = used(aug, seed=9)(images, labels)
    batch, drawn = used(aug, seed=9, return_draw=True)(images, labels)
    assert torch.equal(batch[0], plain[0]) and torch.equal(batch[1], plain[1])
    assert drawn.used.all() and sorted(drawn.order.tolist()) == list(range(8))
    if aug in ("random-erasing", "hide-and-seek"):
        assert ((batch[0] != images).double().mean((1, 2, 3)) - drawn.area).abs().max() < 1e-3
    if aug in ("cutout", "mixcut"):
        assert ((batch[0] == 0).double().mean((1, 2, 3)) - drawn.area).abs().max() < 1e-9
    if aug in ("mixup", "cutmix", "mixcut"):
        onehot = torch.eye(4)[labels]
        assert torch.allclose(
            batch[1], (drawn.lam * onehot + (1 - drawn.lam) * onehot[drawn.order]).float(), atol=1e-6
        )
    rarely = make_transform(aug, 4, 0.0, return_draw=True)(images, labels)
    assert torch.equal(rarely[0][0], images) and not rarely[1].used.any()


def boxes():
    return tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(20, 20))


@pytest.mark.parametrize(
    "batch, match",
    [
        ((Image.new("L", (4, 4)), torch.tensor([0])), "PIL"),
        ((faces()[0], boxes(), faces()[1]), "BoundingBoxes"),
        (({"image": faces()[0]},), "no labels among image"),
        ((faces()[0],), "images and labels"),
        ((faces()[0], "text"), "labels must be a tensor"),
        ((faces()[0], {"labels": [0] * 6}), "images and labels"),
        ((tv_tensors.Video(faces()[0]), faces()[1]), r"\[B, C, H, W\]"),
        ((tv_tensors.Image((255 * faces()[0]).int()), faces()[1]), "int32"),
    ],
)
def test_batches_that_cannot_be_mixed_say_why(batch, match):
    with pytest.raises(AugmentError, match=match):
        MixCut(num_classes=4)(*batch)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: MixCut(labels_getter="labels"), "labels_getter"),
        (lambda: make_transform("mixup", 4, beta=0.5), "mixup has no beta"),
        (lambda: make_transform("cutout", 4, lam=0.5), "cutout has no lam"),
        (lambda: make_transform("baseline", 4, alpha=0.5), "baseline has no alpha"),
    ],
)
def test_parameters_that_a_method_does_not_have(make, match):
    with pytest.raises(AugmentError, match=match):
        make()


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
