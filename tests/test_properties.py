"""Mixers under properties: whatever shape, type, layout and parameters, and what they draw against theory."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from mixcut.augment import TRANSFORMS, make_transform

MIXERS = [name for name in TRANSFORMS if name != "baseline"]
OPTIONS = {
    "lam": ("mixup", "cutmix", "mixcut"),
    "beta": ("cutout", "mixcut"),
    "gamma": MIXERS,
    "alpha": ("mixup", "cutmix", "mixcut"),
    "per_sample": ("cutout", "mixup", "cutmix", "mixcut"),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
share = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-9, 1 - 1e-9]), st.floats(0, 1))


@st.composite
def cases(draw):
    aug = draw(st.sampled_from(MIXERS))
    options = {
        "lam": draw(st.none() | share),
        "beta": draw(st.none() | share),
        "gamma": draw(st.none() | share),
        "alpha": draw(st.sampled_from([1.0, 1e-6, 1e6, 0.3])),
        "per_sample": draw(st.booleans()),
    }
    options = {name: value for name, value in options.items() if aug in OPTIONS[name]}
    shape = (
        draw(st.integers(2, 33)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 47)),
        draw(st.integers(1, 47)),
    )
    layout = draw(st.sampled_from(["contiguous", "channels last", "every second", "transposed", "expanded"]))
    return (
        aug,
        options,
        shape,
        draw(st.sampled_from(DTYPES)),
        layout,
        draw(st.integers(0, 2**32)),
        draw(st.booleans()),
    )


def laid_out(images, layout):
    if layout == "channels last":
        return images.contiguous(memory_format=torch.channels_last)
    if layout == "every second":
        return images.repeat_interleave(2, 0)[::2]
    if layout == "transposed":
        return images.transpose(2, 3).contiguous().transpose(2, 3)
    return images[:1].expand(len(images), -1, -1, -1) if layout == "expanded" else images


def test_any_batch(pytestconfig, record):
    tried = {"cases": 0}

    @settings(
        max_examples=5 * pytestconfig.getoption("examples"),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases())
    def check(case):
        aug, options, shape, dtype, layout, seed, soft = case
        draws = torch.Generator().manual_seed(seed)
        images = laid_out(torch.rand(shape, generator=draws).to(dtype), layout)
        labels = (
            torch.rand(shape[0], 5, generator=draws).softmax(1)
            if soft
            else torch.randint(0, 5, (shape[0],), generator=draws)
        )
        kept, kept_labels, state = images.clone(), labels.clone(), torch.get_rng_state()
        results = [
            make_transform(aug, 5, generator=torch.Generator().manual_seed(seed), **options)(images, labels)
            for _ in range(2)
        ]
        new, mixed = results[0]
        assert torch.equal(new, results[1][0]) and torch.equal(mixed, results[1][1]), (
            "one generator state, one result"
        )
        assert torch.equal(images, kept) and torch.equal(labels, kept_labels), "the input is untouched"
        assert torch.equal(torch.get_rng_state(), state), "nothing is drawn elsewhere"
        assert (
            new.shape == images.shape
            and new.dtype == dtype
            and mixed.shape == (shape[0], 5)
            and mixed.dtype == torch.float32
        )
        assert new.min() >= 0 and new.max() <= 1, "the range is kept"
        assert mixed.min() >= 0 and torch.allclose(mixed.sum(1), torch.ones(shape[0]), atol=1e-5), (
            "labels are distributions"
        )
        tried["cases"] += 1

    check()
    record(
        "mixers: shapes, types, layouts, parameters",
        tried["cases"],
        "range, distribution, input, one state one result: all held",
    )


# of each test on the distributions here: all 25 together are wrong once in a thousand streams of draws
LEVEL = 0.001 / 25


def theirs(draws, aug, **options):
    """Many draws of one method, in images of 1000 × 1000 pixels.

    Eight generators draw, since one that is short of luck is no error."""
    transforms = [
        make_transform(aug, 8, generator=torch.Generator().manual_seed(seed), gamma=1.0, **options)
        for seed in range(2024, 2032)
    ]
    return [transforms[k % 8].draw(2, 1000, 1000) for k in range(draws)]


def fits(values, theory, record, what):
    p = stats.kstest(values, theory).pvalue
    record(f"Kolmogorov–Smirnov: {what}", len(values), f"p = {p:.2g}, level {LEVEL:.0e}")
    assert p > LEVEL, (what, p)


@pytest.mark.parametrize("alpha", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("aug", ["mixup", "mixcut"])
def test_lambda_is_beta_distributed(aug, alpha, pytestconfig, record):
    lam = [drawn.lam.item() for drawn in theirs(100 * pytestconfig.getoption("examples"), aug, alpha=alpha)]
    fits(lam, stats.beta(alpha, alpha).cdf, record, f"λ of {aug}, Beta({alpha:g}, {alpha:g})")


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_eta_is_beta_distributed_and_independent_of_lambda(alpha, pytestconfig, record):
    drawn = theirs(100 * pytestconfig.getoption("examples"), "mixcut", alpha=alpha)
    fits(
        [1 - d.share.item() for d in drawn],
        stats.beta(alpha, alpha).cdf,
        record,
        f"η of mixcut, Beta({alpha:g}, {alpha:g})",
    )
    tau = stats.kendalltau([d.lam.item() for d in drawn], [1 - d.share.item() for d in drawn])
    assert tau.pvalue > LEVEL


@pytest.mark.parametrize("aug", ["cutout", "mixcut"])
def test_centres_are_uniform(aug, pytestconfig, record):
    """A square that is small enough shows its centre, unless the border clips it."""
    drawn = theirs(100 * pytestconfig.getoption("examples"), aug, beta=0.0001)
    for axis, name in ((0, "vertical"), (2, "horizontal")):
        centers = np.array([(d.box[0, axis] + d.box[0, axis + 1]).item() / 2000 for d in drawn])
        inner = centers[(centers > 0.006) & (centers < 0.994)]
        fits(
            inner + np.random.default_rng(0).uniform(-0.0005, 0.0005, len(inner)),
            stats.uniform(0.006, 0.988).cdf,
            record,
            f"centre of {aug}'s square, {name}",
        )


def expected_area(share, steps=400):
    """The expected clipped area of a square of that share: the product of the expected clipped sides."""
    side, c = np.sqrt(share), (np.arange(steps) + 0.5) / steps
    clipped = np.minimum(c + side / 2, 1) - np.maximum(c - side / 2, 0)
    return clipped.mean() ** 2


@pytest.mark.parametrize("beta", [0.05, 0.25, 0.6, 1.0])
def test_the_erased_share_is_what_clipping_leaves(beta, pytestconfig, record):
    areas = np.array(
        [d.area.item() for d in theirs(100 * pytestconfig.getoption("examples"), "mixcut", beta=beta)]
    )
    z = (areas.mean() - expected_area(beta)) / (areas.std() / np.sqrt(len(areas)))
    record(
        f"erased share, β = {beta:g}",
        len(areas),
        f"mean {areas.mean():.4f}, theory {expected_area(beta):.4f}, z = {z:.1f}",
    )
    assert 2 * stats.norm.sf(abs(z)) > LEVEL and areas.max() <= beta + 0.002


def test_the_erased_share_of_a_random_square(pytestconfig, record):
    """Clipping in both directions makes a mixture: many simulated squares stand for the theory."""
    areas = [d.area.item() for d in theirs(100 * pytestconfig.getoption("examples"), "mixcut")]
    draws = np.random.default_rng(1)
    side, c = np.sqrt(draws.uniform(size=400_000)), draws.uniform(size=(2, 400_000))
    theory = np.prod(np.minimum(c + side / 2, 1) - np.maximum(c - side / 2, 0), axis=0)
    p = stats.ks_2samp(areas, theory).pvalue
    record(
        "Kolmogorov–Smirnov: erased share of mixcut, β random", len(areas), f"p = {p:.2g}, level {LEVEL:.0e}"
    )
    assert p > LEVEL


@pytest.mark.parametrize("aug", ["mixcut", "cutmix"])
def test_half_of_the_batches_are_changed(aug, pytestconfig, record):
    transform = make_transform(aug, 8, generator=torch.Generator().manual_seed(7))
    used = sum(
        bool(transform.draw(2, 44, 44).used.all()) for _ in range(50 * pytestconfig.getoption("examples"))
    )
    n = 50 * pytestconfig.getoption("examples")
    p = stats.binomtest(used, n).pvalue
    record(f"{aug} is used (γ = 0.5)", n, f"{used} times, p = {p:.2g}, level {LEVEL:.0e}")
    assert p > LEVEL
