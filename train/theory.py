"""Draw the figures of the theory and compute its numbers: ``python -m train.theory --workdir runs/theory``."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.theory import (
    exponential_normal,
    families,
    huffman,
    information,
    likelihood,
    markov,
    variational,
)
from train.run import config, documents, files, logging, plots, process

RESTAURANT = np.array([[0.2, 0.6, 0.2], [0.3, 0.0, 0.7], [0.5, 0.0, 0.5]])
DISHES = ("hamburger", "pizza", "hot dog")
LETTERS = {"F": 0.5, "C": 0.25, "R": 0.125, "S": 0.125}
OBSERVED = 2.0
"""x of the latent-variable example, z ~ Exp(1) and x|z ~ N(z, 1)."""


@dataclasses.dataclass(frozen=True)
class Theory:
    """Draw the figures of the theory, and print the numbers of the lecture notes beside computed ones."""

    workdir: str = "runs/theory"
    """Folder for the pictures and numbers.json."""
    seed: int = 0
    """Seed of all random numbers."""
    traceback: bool = False
    """Show where in the code an error arose."""


def numbers() -> list[tuple[str, str, float]]:
    """Numbers of the lecture notes: description, value printed in the notes, value computed here."""
    info, half, unfair = information, np.array([0.5, 0.5]), np.array([0.2, 0.8])
    one_hot, dyadic = np.array([1.0, 0, 0, 0]), np.array([0.5, 0.25, 0.125, 0.125])
    code, after_one = huffman.code(LETTERS), markov.evolve(jnp.asarray(RESTAURANT), jnp.array([0.0, 1, 0]), 1)[-1]
    rows: list[tuple[str, str, Any]] = [
        ("entropy of a fair coin, bits", "1", info.entropy_bits(half)),
        ("self-information of 0.2, bits", "2.32", info.self_information_bits(unfair)[0]),
        ("self-information of 0.8, bits", "0.32", info.self_information_bits(unfair)[1]),
        ("entropy of (0.2, 0.8), bits", "0.72", info.entropy_bits(unfair)),
        ("H(p, q), p = (1/2, 1/2), q = (0.2, 0.8), bits", "1.32", info.cross_entropy_bits(half, unfair)),
        ("H(p, q), p = (1/2, 1/2), q = (0.4, 0.6), bits", "1.03", info.cross_entropy_bits(half, np.array([0.4, 0.6]))),
        ("one-hot q coded for p = (1/2, 1/4, 1/8, 1/8), bits", "1", info.cross_entropy_bits(one_hot, dyadic)),
        ("one-hot q coded for itself, bits", "0", info.cross_entropy_bits(one_hot, one_hot)),
        ("p coded for one-hot q, bits", "inf", info.cross_entropy_bits(dyadic, one_hot)),
        ("F/C/R/S in the fixed code, bits", "2.25", huffman.expected_length(FIXED, LETTERS)),
        ("F/C/R/S in Huffman's code, bits", "1.75", huffman.expected_length(code, LETTERS)),
        ("entropy of F/C/R/S, bits", "1.75", info.entropy_bits(dyadic)),
        ("the ambiguous code is prefix-free", "no", huffman.is_prefix_free(AMBIGUOUS)),
        ("maximum likelihood of 30 heads in 100", "0.3", likelihood.bernoulli(30, 100)),
        ("restaurant, from pizza after one day: hamburger", "0.3", after_one[0]),
        ("restaurant, from pizza after one day: hot dog", "0.7", after_one[2]),
    ]
    for dish, share, value in zip(DISHES, (25, 15, 31), markov.stationary(jnp.asarray(RESTAURANT)), strict=True):
        rows.append((f"restaurant, in the long run: {dish}", f"{share}/71 = {share / 71:.4f}", value))
    return [(name, printed, float(value)) for name, printed, value in rows]


FIXED = {"F": "00", "C": "01", "R": "100", "S": "101"}
AMBIGUOUS = {"F": "0", "C": "1", "R": "01", "S": "10"}


def coin(path: pathlib.Path, key: jax.Array) -> None:
    """Plot the self-information of an event and the entropy of a coin."""
    p = np.linspace(1e-3, 1 - 1e-3, 999)
    with plots.figure(path, 1, 2) as ((left, right),):
        left.plot(p, information.self_information_bits(p))
        for x in (0.2, 0.8):
            _mark(left, x, float(information.self_information_bits(x)), f"{x}: %.2f bits")
        left.set(xlabel="probability of the event", ylabel="bits", title="Self-information  $-\\log_2 p$", ylim=(0, 8))
        right.plot(p, information.entropy_bits(np.stack([p, 1 - p], -1)))
        for x in (0.2, 0.5):
            _mark(right, x, float(information.entropy_bits(np.array([x, 1 - x]))), f"{x}: %.2f bits")
        right.set(xlabel="probability of heads", ylabel="bits", title="Entropy of a coin", ylim=(0, 1.12))


def divergence(path: pathlib.Path, key: jax.Array) -> None:
    """Plot cross-entropy and KL divergence against q, for two p."""
    x = np.linspace(0.01, 0.99, 491)
    q = np.stack([x, 1 - x], -1)
    with plots.figure(path, 1, 2, share="y") as axes:
        for panel, heads in zip(axes[0], (0.5, 0.8), strict=True):
            p = np.broadcast_to([heads, 1 - heads], q.shape)
            panel.plot(x, information.cross_entropy_bits(p, q), label="cross-entropy H(p, q)")
            panel.plot(x, information.kl_bits(p, q), label="divergence D(p‖q)")
            panel.axhline(float(information.entropy_bits(p[0])), color="#888888", ls="--", lw=1, label="entropy H(p)")
            panel.set(xlabel="q of heads", title=f"p = ({heads:g}, {1 - heads:g})", ylim=(0, 4))
        for heads in (0.2, 0.4):
            value = float(information.cross_entropy_bits(np.array([0.5, 0.5]), np.array([heads, 1 - heads])))
            _mark(axes[0, 0], heads, value, "%.2f")
        axes[0, 0].set_ylabel("bits")


def coin_likelihood(path: pathlib.Path, key: jax.Array) -> None:
    """Plot the likelihood of 30 heads in 100 with its maximum and interval, and the coverage of such intervals."""
    toss = lambda logit, x: jnp.where(x, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))
    interval = jax.jit(jax.vmap(lambda x: jnp.stack(likelihood.confidence_interval(likelihood.fit(toss, 0.0, x)))))
    lower, upper = jax.nn.sigmoid(interval(jnp.arange(100)[None] < 30)[0])
    theta = np.linspace(0.01, 0.99, 981)
    log_likelihood = 30 * np.log(theta) + 70 * np.log1p(-theta)
    best = float(likelihood.bernoulli(30, 100))
    repeated = jax.nn.sigmoid(interval(jax.random.bernoulli(key, 0.3, (10_000, 100))))
    misses = np.asarray((repeated[:, 0] > 0.3) | (repeated[:, 1] < 0.3))
    with plots.figure(path, 1, 2) as ((left, right),):
        left.plot(theta, np.exp(log_likelihood - log_likelihood.max()))
        left.axvspan(float(lower), float(upper), alpha=0.15, lw=0, label=f"95 %: {lower:.3f} to {upper:.3f}")
        left.axvline(best, color=plots.COLOURS[1], lw=1.2, label=f"maximum: {best:.2f}")
        left.set(xlabel="θ", ylabel="likelihood, relative to its maximum", title="30 heads in 100 tosses")
        for i in range(60):
            right.plot(repeated[i], [i, i], color=plots.COLOURS[int(misses[i])], lw=1.4)
        right.axvline(0.3, color="#444444", lw=1)
        right.set(
            xlabel="θ", ylabel="experiment", title=f"10,000 experiments: {1 - misses.mean():.1%} of intervals cover 0.3"
        )


def bound(path: pathlib.Path, key: jax.Array) -> None:
    """Plot the ELBO as it climbs to log p(x), and the fitted q beside the posterior."""
    log_joint = lambda z: exponential_normal.log_joint(z, OBSERVED).sum()
    evidence = float(exponential_normal.log_evidence(OBSERVED))
    z = jnp.linspace(0.005, 4, 800)
    with plots.figure(path, 1, 2) as ((left, right),):
        for name, family in (
            ("log-normal", families.log_normal(1)),
            ("gamma", families.gamma(1)),
            ("truncated normal", families.truncated_normal(1)),
        ):
            run = jax.jit(
                lambda key, family=family: variational.fit(
                    log_joint, family, key, num_steps=300, num_samples=500, optimizer=optax.adam(0.03)
                )
            )
            fit = run(key)
            density = jax.vmap(lambda z, family=family, q=fit.distribution: jnp.exp(family.log_prob(q, z[None])))(z)
            left.plot(fit.bound, lw=1.3, label=f"{name}: {float(fit.bound[-50:].mean()):.3f}")
            right.plot(z, density, lw=1.5, label=name)
        left.axhline(evidence, color="#444444", ls="--", lw=1, label=f"log p(x) = {evidence:.3f}")
        left.set(
            xlabel="step",
            ylabel="ELBO, nats",
            title="The bound climbs to log p(x)",
            ylim=(evidence - 0.5, evidence + 0.06),
        )
        exact = jnp.exp(jax.vmap(lambda z: log_joint(z[None]))(z) - evidence)
        right.plot(z, exact, color="#444444", ls="--", lw=1.2, label="posterior p(z|x)")
        right.set(xlabel="z", ylabel="density", title=f"z ~ Exp(1), x|z ~ N(z, 1), x = {OBSERVED:g}", ylim=(0, 0.9))


def chain(path: pathlib.Path, key: jax.Array) -> None:
    """Plot the convergence of the restaurant's chain to its stationary distribution."""
    transition, steps = jnp.asarray(RESTAURANT), 12
    stationary = markov.stationary(transition)
    paths = markov.evolve(transition, jnp.eye(3, dtype=transition.dtype), steps)
    second = float(np.sort(np.abs(np.linalg.eigvals(RESTAURANT)))[-2])
    with plots.figure(path, 1, 2) as ((left, right),):
        for i, dish in enumerate(DISHES):
            left.plot(paths[:, 1, i], marker="o", ms=3.5, label=f"{dish}: {float(stationary[i]):.3f}")
            left.axhline(float(stationary[i]), color=plots.COLOURS[i], ls="--", lw=0.9)
        left.set(xlabel="day", ylabel="probability", title="Starting with pizza")
        for i, dish in enumerate(DISHES):
            right.plot(markov.total_variation(paths[:, i], stationary), marker="o", ms=3.5, label=f"from {dish}")
        right.plot(second ** np.arange(len(paths)), color="#888888", ls="--", lw=1, label=f"$|λ_2|^t$, {second:.3f}")
        right.set(xlabel="day", yscale="log", title="Total variation to the stationary distribution")


def code_lengths(path: pathlib.Path, key: jax.Array) -> None:
    """Plot Huffman's code lengths beside -log₂ p, and the rates of codes for blocks of symbols beside the entropy."""
    text = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8").lower()
    counts = {letter: text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    order = sorted((letter for letter in counts if counts[letter]), key=lambda letter: -counts[letter])
    share = np.array([counts[letter] for letter in order]) / sum(counts.values())
    code = huffman.code({letter: counts[letter] for letter in order})
    mean, entropy = huffman.expected_length(code, counts), float(information.entropy_bits(share))
    with plots.figure(path, 1, 2, size=(14, 4.4), widths=(1.5, 1)) as ((left, right),):
        left.bar(range(len(order)), [len(code[letter]) for letter in order], alpha=0.75, label="Huffman's code word")
        ideal = np.asarray(information.self_information_bits(share))
        left.plot(range(len(order)), ideal, "o", color=plots.COLOURS[1], label="self-information")
        left.set_xticks(range(len(order)), order)
        left.set(ylabel="bits", title=f"Letters of the README: {mean:.3f} bits each, entropy {entropy:.3f}")
        source, blocks = np.array([0.9, 0.1]), range(1, 9)
        rate = float(information.entropy_bits(source))
        lengths = [huffman.expected_length(*_block_code(source, n)) / n for n in blocks]
        right.plot(blocks, lengths, marker="o", label="Huffman on blocks")
        right.plot(blocks, [rate + 1 / n for n in blocks], color="#888888", lw=1, label="H + 1/n")
        right.axhline(rate, color=plots.COLOURS[1], ls="--", lw=1.2, label=f"entropy H = {rate:.3f}")
        right.set(
            xlabel="symbols in a block n", ylabel="bits per symbol", title="A coin of (0.9, 0.1)", ylim=(0.3, 1.1)
        )


def _block_code(source: np.ndarray, n: int) -> tuple[dict[tuple[int, ...], str], dict[tuple[int, ...], float]]:
    """Huffman's code of blocks of n symbols, and the probabilities of the blocks."""
    frequencies = {block: math.prod(source[i] for i in block) for block in itertools.product((0, 1), repeat=n)}
    return huffman.code(frequencies), frequencies


def _mark(panel: Any, x: float, y: float, text: str) -> None:
    panel.plot([x], [y], "o", color="#444444", ms=5)
    panel.annotate(text % y, (x, y), (6, 6), textcoords="offset points")


FIGURES: dict[str, Callable[[pathlib.Path, jax.Array], None]] = {
    "coin": coin,
    "divergence": divergence,
    "likelihood": coin_likelihood,
    "bound": bound,
    "chain": chain,
    "code-lengths": code_lengths,
}


def _is_own(path: pathlib.Path) -> bool:
    """Return True if a file of numbers, which is written first, is of this command."""
    try:
        rows = json.loads(files.content(path))
        return bool(rows) and all(row.keys() == {"what", "notes", "here"} for row in rows)
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return False


def main(argv: Sequence[str]) -> None:
    """Print and write the numbers, and draw the figures."""
    settings, _ = config.command(Theory, "theory", argv)
    folder = pathlib.Path(settings.workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise config.UsageError(f"--workdir {folder}: {error.strerror}; name a folder that can be made") from error
    names = ("numbers.json", *(f"{name}.png" for name in FIGURES))
    for name in names:
        files.check_output(folder / name, flag="--workdir")
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not _is_own(folder / "numbers.json"):
        raise config.UsageError(
            f"--workdir {folder}: holds {', '.join(taken)}, which this command did not write; name another folder"
        )
    table = numbers()
    width = max(len(name) for name, _, _ in table)
    logging.log(f"{'':{width}}  {'the notes':>14}  here")
    for name, printed, value in table:
        logging.log(f"{name:{width}}  {printed:>14}  {value:.6g}")
    text = json.dumps(
        [{"what": name, "notes": printed, "here": str(value)} for name, printed, value in table], indent=1
    )
    with documents.writing(folder / "numbers.json"):
        files.replace(folder / "numbers.json", text + "\n")
    for i, (name, draw) in enumerate(FIGURES.items()):
        draw(folder / f"{name}.png", jax.random.fold_in(jax.random.key(settings.seed), i))
        logging.log(f"{folder / name}.png")


if __name__ == "__main__":
    process.main(main)
