"""Distances of sets of points: closed forms, invariances, and floors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from genjax.metrics import classes, distances, neighbours

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def gaussian(seed=0, n=400, d=5):
    source = np.random.default_rng(seed)
    return source.normal(size=(n, d)) @ source.normal(size=(d, d)) + source.normal(size=d)


def test_the_frechet_distance_is_that_of_gaussians_with_these_moments():
    a, b = gaussian(0), gaussian(1, 300)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root.real)
    assert np.isclose(distances.frechet_distance(a, b), by_hand, rtol=1e-8)
    commuting = np.diag([1.0, 4.0, 9.0, 16.0, 25.0])
    scaled = (a - a.mean(0)) @ np.linalg.inv(np.linalg.cholesky(first)).T
    assert np.isclose(
        distances.frechet_distance(scaled, scaled @ commuting), ((np.diag(commuting) - 1) ** 2).sum(), rtol=1e-8
    )


def test_the_frechet_distance_does_not_depend_on_order_rotation_or_shift():
    a, b = gaussian(0), gaussian(1)
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    far = distances.frechet_distance(a, b)
    assert np.isclose(distances.frechet_distance(a[::-1], RNG.permutation(b)), far, rtol=1e-9)
    assert np.isclose(distances.frechet_distance(a @ rotation + 3, b @ rotation + 3), far, rtol=1e-8)
    assert np.isclose(distances.frechet_distance(b, a), far, rtol=1e-8) and distances.frechet_distance(a, a) < 1e-6
    flat = np.concatenate([a, np.zeros((400, 3))], 1)  # a singular covariance
    assert np.isclose(distances.frechet_distance(flat, np.concatenate([b, np.zeros((400, 3))], 1)), far, rtol=1e-6)


@pytest.mark.parametrize("measure", [
    distances.frechet_distance,
    lambda a, b: float(distances.kernel_distance(KEY, a, b, num_blocks=20, size=200).mean),
    lambda a, b: float(distances.energy_distance(jnp.asarray(a), jnp.asarray(b))),
])  # fmt: skip
def test_distances_grow_with_noise(measure):
    real, held = RNG.normal(size=(2, 500, 4))
    floor = measure(real, held)
    noisy = [measure(real, held + level * RNG.normal(size=held.shape)) for level in (0.5, 1.0, 2.0)]
    assert floor < noisy[0] < noisy[1] < noisy[2]


def test_the_kernel_distance_of_equal_laws_is_zero_within_its_error():
    scores = []
    for seed in range(20):
        a, b = np.random.default_rng(seed).normal(size=(2, 300, 3))
        scores.append(float(distances.kernel_distance(KEY, a, b, num_blocks=1, size=300).mean))
    assert abs(np.mean(scores)) < 4 * np.std(scores) / np.sqrt(20) and min(scores) < 0 < max(scores)  # no bias
    by_hand = np.random.default_rng(3).normal(size=(2, 40, 3)) + np.array([0.0, 1.0])[:, None, None]
    x, y = by_hand
    k = lambda u, v: (u @ v / 3 + 1) ** 3
    pairs = [(i, j) for i in range(40) for j in range(40)]
    within = lambda s: np.mean([k(s[i], s[j]) for i, j in pairs if i != j])
    direct = within(x) + within(y) - 2 * np.mean([k(x[i], y[j]) for i, j in pairs])
    assert np.isclose(distances.kernel_distance(KEY, x, y, num_blocks=2, size=40).mean, direct, rtol=1e-5)


def test_the_energy_distance_is_the_integral_of_squared_distribution_functions():
    """In one dimension 2 ∫ (F - G)² dx (Székely & Rizzo 2013, theorem 1)."""
    a, b = np.sort(RNG.normal(size=30)), np.sort(RNG.normal(1, 2, size=40))
    grid = np.sort(np.concatenate([a, b]))
    f, g = (np.searchsorted(s, grid[:-1], "right") / len(s) for s in (a, b))
    integral = 2 * ((f - g) ** 2 * np.diff(grid)).sum()
    assert np.isclose(distances.energy_distance(jnp.asarray(a)[:, None], jnp.asarray(b)[:, None]), integral, rtol=1e-4)


def test_neighbours_of_hand_made_sets():
    real = np.arange(10.0)[:, None]
    same = neighbours.prdc(real, real, k=1)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = neighbours.prdc(real, real + 100, k=1)
    assert far == (0, 0, 0, 0)
    half = neighbours.prdc(real, np.repeat(real[:5], 2, 0) + np.tile([0.0, 1e-3], 5)[:, None], k=1)
    assert half.precision == 1 and half.recall < 0.6 and half.coverage == 0.6
    uniform = RNG.normal(size=(2, 800, 2))
    equal = neighbours.prdc(*uniform)
    assert abs(equal.density - 1) < 0.1 and equal.coverage > 0.9
    outlier = np.concatenate([uniform[0], [[50.0, 50.0]]])  # its ball holds everything
    gamed = neighbours.prdc(outlier, RNG.uniform(0, 60, (800, 2)))
    assert gamed.precision > 0.5 and gamed.density < 0.3  # precision is fooled, density is not


def test_copies_are_told_from_generalisation():
    train, held, fresh = RNG.normal(size=(3, 500, 6))
    assert abs(neighbours.memorization(train, held, fresh).ratio - 1) < 0.1
    copied = neighbours.memorization(train, held, train[:200] + 1e-4)
    assert copied.ratio < 1e-2 and copied.share == 1
    assert neighbours.memorization(train, held, fresh).share < 0.04


def test_the_nearest_is_that_of_brute_force_in_every_chunk(monkeypatch):
    a, b = RNG.normal(size=(37, 3)), RNG.normal(size=(50, 3))
    brute = np.linalg.norm(a[:, None] - b, axis=-1)
    monkeypatch.setattr(neighbours, "CHUNK", 10)
    assert np.allclose(neighbours.nearest_distances(a, b), brute.min(1))
    own = np.sort(np.linalg.norm(a[:, None] - a, axis=-1), 1)
    assert np.allclose(neighbours.kth_neighbour_distances(a, 4), own[:, 4], atol=1e-7)


def test_classes_that_are_missing_are_seen():
    even = np.full(4, 0.25)
    whole = classes.balance(np.arange(400) % 4, even)
    assert whole.covered == 4 and abs(whole.kl) < 1e-6
    lost = classes.balance(np.arange(399) % 3, even)
    assert lost.covered == 3 and np.isclose(lost.kl, np.log(4 / 3), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: distances.frechet_distance(np.zeros((1, 2)), np.zeros((5, 2))),
            r"a: expected at least 2 points .* \(1, 2\)",
        ),
        (
            lambda: distances.frechet_distance(np.zeros((5, 2)), np.zeros((5, 3))),
            "b: expected points of 2 features, .* got 3",
        ),
        (
            lambda: distances.kernel_distance(KEY, np.zeros((5, 2)), np.full((5, 2), np.nan)),
            "b: expected finite numbers",
        ),
        (lambda: neighbours.prdc(np.zeros((5, 2)), np.zeros((5, 2))), "k: expected 1 to below 5.* got 5"),
        (lambda: neighbours.prdc(np.zeros((5, 2)), np.zeros((5, 2)), k=1.5), "k: expected a whole number"),
        (lambda: classes.balance(np.array([4]), np.full(4, 0.25)), r"classes: expected whole numbers in \[0, 4\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("shift", "n", "m", "low"), [(0.0, 30, 90, 0.94), (0.15, 60, 60, 0.88), (1.0, 120, 60, 0.86)])
def test_the_error_bar_of_the_kernel_distance_covers_over_fresh_sets(shift, n, m, low):
    """Two standard errors, 300 times, of N(0, I) and N(s, I), by their moments: with r = |s|² and t = x·y,
    E t = 0 or r, E t² = d, d + r or d + 2 r + r², E t³ = 0 or r³ + 6 r² + (3 d + 6) r."""
    d, r = 4, 4 * shift**2
    exact = 3 * r / d + 3 * r**2 / d**2 + (r**3 + 6 * r**2 + (3 * d + 6) * r) / d**3
    rng = np.random.default_rng(1)
    sets = [(rng.normal(size=(n, 4)), rng.normal(size=(m, 4)) + shift) for _ in range(300)]
    estimates = [distances.kernel_distance(KEY, a, b) for a, b in sets]
    mean, error = (np.array([float(part) for part in column]) for column in zip(*estimates, strict=True))
    assert np.mean(np.abs(mean - exact) < 2 * error) >= low
    assert abs(mean.mean() - exact) < 4 * mean.std() / np.sqrt(300)  # no bias
    assert 0.75 < np.mean(error**2) / mean.var() < (2 if shift == 0 else 1.33)  # cut off below where laws are equal


def test_the_kernel_distance_of_sets_no_larger_than_a_block_has_an_honest_error():
    a, b = np.random.default_rng(0).normal(size=(2, 200, 3))
    whole, few = distances.kernel_distance(KEY, a, b), distances.kernel_distance(KEY, a, b, num_blocks=4, size=20)
    assert 1e-3 < whole.standard_error < few.standard_error
    far = distances.kernel_distance(KEY, a + 1e4, b + 1e4)  # of the same pairs: scaled by the slope of the kernel there
    k = lambda x, y: (np.asarray(x, np.longdouble) @ np.asarray(y, np.longdouble).T / 3 + 1) ** 3
    x, y = a + 1e4, b + 1e4
    off = lambda k: (k.sum() - np.trace(k)) / (200 * 199)
    direct = off(k(x, x)) + off(k(y, y)) - 2 * k(x, y).mean()
    assert np.isclose(far.mean, float(direct), rtol=1e-3)
    for wrong in ({"size": 0}, {"num_blocks": 0}, {"num_blocks": 1, "size": 9}):
        with pytest.raises(ValueError, match="expected"):
            distances.kernel_distance(KEY, a, b, **wrong)


def test_the_frechet_distance_of_near_sets_keeps_its_digits():
    """Of x and (1 + e) x: e² tr Σ, a shift by s adds |s|²; also where features repeat."""
    x = gaussian(0)
    x = np.concatenate([x, x[:, :2]], 1)
    trace = x.var(0, ddof=1).sum()
    e = 2.0**-24
    near = x - x.mean(0)
    assert np.isclose(distances.frechet_distance(near, near * (1 + e)), e**2 * trace, rtol=1e-5)
    assert np.isclose(distances.frechet_distance(x, x + 2.0**-20), 7 * 2.0**-40, rtol=1e-4)
    assert distances.frechet_distance(x, x) < 1e-26
    assert np.isclose(distances.frechet_distance(x + 1e8, 2 * x + 1e8), distances.frechet_distance(x, 2 * x), rtol=1e-5)
    assert distances.frechet_distance(np.array([[0, 2], [2, 0]], np.uint8), np.array([[1, 3], [3, 1]], np.int64)) == 2


def test_energy_at_coinciding_points_and_far_from_0():
    x = jnp.array([[0.0], [0.0], [1.0]])
    slope = jax.grad(lambda y: distances.energy_distance(x, y))(x)
    assert np.isfinite(slope).all()
    a, b = RNG.normal(size=(2, 50, 3))
    near = distances.energy_distance(a, b)
    assert np.isclose(distances.energy_distance(a + 1e8, b + 1e8), near, rtol=1e-4)
    assert np.isclose(distances.energy_distance(1e25 * a, 1e25 * b), 1e25 * near, rtol=1e-4)
    assert np.isclose(distances.energy_distance(1e-30 * a, 1e-30 * b), 1e-30 * near, rtol=1e-4)
    assert np.isclose(
        distances.energy_distance(np.array([[0], [1]], np.uint8), np.array([[255], [254]], np.uint8)), 507
    )
    far = jnp.array([[6e4]], jnp.float16)  # whose differences float16 does not hold
    assert np.isclose(distances.energy_distance(far, -far), 4 * float(far[0, 0]))
    assert all(distances.energy_distance(a[i:], a[i:][::-1]) >= 0 for i in range(20))


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_neighbours_are_those_of_brute_force_wherever_the_points_lie(offset):
    """Two clusters far from each other as well as from 0, on a lattice, so that many distances are equal."""
    real, generated = (np.round(4 * RNG.normal(size=(60, 3))) / 4 for _ in range(2))
    real[::2] -= offset
    generated[::2] -= offset
    brute = lambda x, y: np.linalg.norm(x[:, None] - y, axis=-1)
    real_radius, generated_radius = (np.sort(brute(x, x), 1)[:, 5] for x in (real, generated))
    across = brute(generated, real)
    within = across <= real_radius
    exact = within.any(1).mean(), (across <= generated_radius[:, None]).any(0).mean(), within.sum(1).mean() / 5
    assert neighbours.prdc(real, generated) == pytest.approx((*exact, within.any(0).mean()), abs=1e-12)
    assert np.array_equal(neighbours.kth_neighbour_distances(real, 5), real_radius)
    assert np.array_equal(neighbours.nearest_distances(generated, real), across.min(1))
    assert np.array_equal(neighbours.pairwise_distances(generated, real), across)


GOOD = np.random.default_rng(5).normal(size=(12, 2))
SHARES = np.full(4, 0.25)
BAD = [
    np.full((12, 2), np.nan),
    np.where(np.eye(12, 2), np.inf, GOOD),
    np.zeros((0, 2)),
    np.zeros(12),
    np.zeros((12, 3)),
]
ENTRANCES = [
    distances.frechet_distance,
    distances.energy_distance,
    distances.standardise,
    lambda a, b: distances.kernel_distance(KEY, a, b),
    neighbours.prdc,
    neighbours.nearest_distances,
    neighbours.pairwise_distances,
    lambda a, b: neighbours.memorization(a, GOOD, b),
    lambda a, b: neighbours.memorization(GOOD, a, b),
    lambda a, b: classes.modes(a, b, 1.0),
]


@pytest.mark.parametrize("entrance", range(len(ENTRANCES)))
def test_every_entrance_refuses_bad_points(entrance):
    for bad in BAD:
        for pair in ((bad, GOOD), (GOOD, bad)):
            with pytest.raises(ValueError, match="expected"):
                ENTRANCES[entrance](*pair)


@pytest.mark.parametrize("call", [
    lambda: neighbours.kth_neighbour_distances(BAD[0], 2),
    lambda: neighbours.kth_neighbour_distances(GOOD, 12),
    lambda: neighbours.memorization(GOOD, GOOD, GOOD),
    lambda: distances.standardise(GOOD[:1], GOOD),
    lambda: distances.frechet_distance(GOOD[:1], GOOD),
    lambda: distances.kernel_distance(KEY, GOOD[:9], GOOD),
    lambda: distances.kernel_distance(KEY, 1e20 * GOOD, GOOD),
    lambda: distances.frechet_distance(1e200 * GOOD, GOOD),
    lambda: classes.balance(np.zeros(0, int), SHARES),
    lambda: classes.balance(np.array([0.5]), SHARES),
    lambda: classes.balance(np.array([-1]), SHARES),
    lambda: classes.balance(np.array([1]), 2 * SHARES),
    lambda: classes.balance(np.array([1]), np.array([np.nan, 1])),
    lambda: classes.modes(GOOD, GOOD, np.nan),
    lambda: classes.modes(GOOD, GOOD, -1.0),
])  # fmt: skip
def test_what_has_no_number_is_refused(call):
    with pytest.raises(ValueError, match="expected|row|sum"):
        call()
