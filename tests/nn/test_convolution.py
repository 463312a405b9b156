"""The convolutions equal the stock ones: values, first and second gradients, both sides of the platform choice."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import convolution

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})  # compiles faster
PAIRS = {"conv": (convolution.Conv, nn.Conv), "transposed": (convolution.ConvTranspose, nn.ConvTranspose)}
OPERATIONS = {"conv": convolution.conv, "transposed": convolution.conv_transpose}
PADDINGS = ["SAME", "VALID", 1, ((1, 2), (0, 1)), 3]


def normal(seed, shape, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def stock(name, x, kernel, strides, padding):
    if name == "transposed":
        return jax.lax.conv_transpose(x, kernel, strides, padding)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(operation, x, kernel):
    y, pull = jax.vjp(operation, x, kernel)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def close(ours, theirs, tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        assert np.max(np.abs(a - b)) <= tolerance * max(1, np.max(np.abs(b)))


GEOMETRIES = [
    ((1, 1), (1, 1), (8, 7), "SAME"),
    ((3, 3), (2, 2), (7, 8), "SAME"),
    ((3, 3), (2, 1), (8, 7), ((1, 2), (0, 1))),
    ((4, 4), (2, 2), (8, 6), 1),
    ((4, 4), (2, 2), (7, 8), "VALID"),
    ((7, 7), (1, 1), (8, 7), "SAME"),
    ((7, 7), (2, 2), (9, 8), 3),
    ((2, 3), (3, 3), (8, 7), ((0, 1), (2, 4))),
]
ALL_GEOMETRIES = list(
    itertools.product(
        [(1, 1), (3, 3), (4, 4), (7, 7), (2, 3)], [(1, 1), (2, 2), (2, 1), (3, 3)], [(8, 8), (7, 9)], PADDINGS
    )
)


def equals_flax(name, kernel_size, strides, size, padding):
    ours, theirs = PAIRS[name]
    with jax.enable_x64(True):
        x = normal(0, (2, *size, 3))
        layers = [m(4, kernel_size, strides=strides, padding=padding, param_dtype=jnp.float64) for m in (ours, theirs)]
        params, expected = (layer.init(jax.random.key(1), x) for layer in layers)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, expected))
        bent = jax.tree.map(lambda p: p + 0.1, params)
        both = jit(lambda p, x: [value_and_gradients(layer.apply, p, x) for layer in layers])
        close(*both(bent, x), 1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("kernel_size", "strides", "size", "padding"), GEOMETRIES)
def test_parameters_values_and_gradients_are_those_of_flax(name, kernel_size, strides, size, padding):
    equals_flax(name, kernel_size, strides, size, padding)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_every_geometry_equals_flax(name):
    for geometry in ALL_GEOMETRIES:
        equals_flax(name, *geometry)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_both_sides_of_the_platform_choice_agree(name, strides):
    """What CPU runs against what the others run, both on this machine; and each is what its platform lowers to."""
    x, kernel = normal(0, (2, 6, 5, 3), jnp.float32), normal(1, (4, 3, 3, 2), jnp.float32)
    args = ((strides, strides), ((2, 1), (0, 3)), x, kernel)
    if name == "conv":
        canonical, plain = convolution._conv_gradients, convolution._stock_gradients(convolution._stock_conv)
        y = convolution._stock_conv(*args)
    else:
        canonical = convolution._conv_transpose_gradients
        plain = convolution._stock_gradients(convolution._stock_conv_transpose)
        y = convolution._stock_conv_transpose(*args)
        close(convolution._depth_to_space_conv(*args), y, 2e-6)
    close(canonical(*args, jnp.sin(y)), plain(*args, jnp.sin(y)), 2e-6)

    def loss(x, kernel):
        return jnp.sum(OPERATIONS[name](x, kernel, strides, args[1]) ** 2)

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    text = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert "conditional(" not in traced.lower().compile().as_text()
    canonical_form = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    forms = {p: [line for line in t.splitlines() if "stablehlo.convolution" in line] for p, t in text.items()}
    dilated = lambda line: any(f"{side}_dilate = [{s}" in line for side in ("lhs", "rhs") for s in (2, 3))
    assert all(canonical_form in line and not dilated(line) for line in forms["cpu"])
    assert "dot_general" in text["cpu"]
    assert any(canonical_form not in line for line in forms["cuda"]) and "dot_general" not in text["cuda"]


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_inside_a_scan_are_canonical_too(name):
    """The loop is what the canonical form is for: nothing in the compiled program is dilated or permuted."""
    x, kernel = normal(0, (2, 6, 6, 3), jnp.float32), normal(1, (4, 4, 3, 3), jnp.float32)
    energy = lambda kernel: jnp.sum(OPERATIONS[name](x, kernel, 2, ((1, 1), (1, 1))) ** 2)

    def descend(kernel):
        return jax.lax.scan(lambda k, _: (k - 1e-3 * jax.grad(energy)(k), energy(k)), kernel, length=3)

    program = jax.jit(descend).lower(kernel).compile()
    assert "conditional(" not in program.as_text()
    convolutions = [line for line in program.as_text().splitlines() if " convolution(" in line]
    assert convolutions and all("b01f_01io->b01f" in line and "hs_dilate" not in line for line in convolutions)
    plain = kernel
    for _ in range(3):
        plain = plain - 1e-3 * jax.grad(lambda k: jnp.sum(stock(name, x, k, (2, 2), ((1, 1), (1, 1))) ** 2))(plain)
    close(program(kernel)[0], plain, 1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_second_order_gradients_are_those_of_the_stock_operations(name):
    """A gradient penalty ‖∂/∂x Σ tanh(conv(x))‖², differentiated by kernel and image."""
    with jax.enable_x64(True):
        x, kernel = normal(0, (2, 5, 6, 2)), normal(1, (3, 4, 2, 3))
        pads = ((1, 0), (2, 1))

        def penalty(operation, x, kernel):
            return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(operation(x, kernel, (2, 2), pads))))(x) ** 2)

        gradient = lambda operation: jit(jax.grad(functools.partial(penalty, operation), (0, 1)))(x, kernel)
        close(gradient(OPERATIONS[name]), gradient(functools.partial(stock, name)), 1e-11)


@pytest.mark.parametrize("name", PAIRS)
def test_transformations_compose(name):
    """vmap over images, over kernels (many seeds) and over both, pmap, checkpoint: each equals a plain loop."""
    xs, kernels = normal(0, (3, 2, 6, 5, 2), jnp.float32), normal(1, (3, 3, 3, 2, 4), jnp.float32)
    run = lambda x, kernel: value_and_gradients(lambda x, k: OPERATIONS[name](x, k, 2, 1), x, kernel)
    loop = lambda f, *args: jax.tree.map(lambda *rows: jnp.stack(rows), *[f(*row) for row in zip(*args, strict=True)])
    expected = loop(jit(run), xs, kernels)
    close(jit(jax.vmap(run))(xs, kernels), expected, 2e-6)
    single = jit(run)
    close(jit(jax.vmap(run, (0, None)))(xs, kernels[0]), loop(lambda x: single(x, kernels[0]), xs), 2e-6)
    close(jit(jax.vmap(run, (None, 0)))(xs[0], kernels), loop(lambda k: single(xs[0], k), kernels), 2e-6)
    close(jax.pmap(run)(xs[:1], kernels[:1]), jax.tree.map(lambda a: a[:1], expected), 2e-6)
    saved = jax.checkpoint(lambda x, k: OPERATIONS[name](x, k, 2, 1))
    close(jit(functools.partial(value_and_gradients, saved))(xs[0], kernels[0]), single(xs[0], kernels[0]), 2e-6)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.bfloat16, 2e-2), (jnp.float32, 2e-6), (jnp.float64, 1e-13)])
def test_types_are_kept(name, dtype, tolerance):
    pads = ((1, 1), (1, 1))
    with jax.enable_x64(True):
        x, kernel = normal(0, (4, 8, 8, 3), dtype), normal(1, (4, 4, 3, 5), dtype)
        run = jit(value_and_gradients, static_argnums=0)
        ours = run(lambda x, k: OPERATIONS[name](x, k, 2, pads), x, kernel)
        theirs = run(lambda x, k: stock(name, x, k, (2, 2), pads), x, kernel)
        assert all(a.dtype == dtype for a in ours)
        close(ours, theirs, tolerance)


def test_layer_computes_in_dtype_with_float32_parameters():
    layer = convolution.Conv(4, (3, 3), dtype=jnp.bfloat16)
    x = normal(0, (1, 4, 4, 2), jnp.float32)
    params = layer.init(jax.random.key(0), x)
    assert layer.apply(params, x).dtype == jnp.bfloat16
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
    assert "bias" not in convolution.Conv(4, (3, 3), use_bias=False).init(jax.random.key(0), x)["params"]


@pytest.mark.parametrize("name", PAIRS)
def test_flipping_no_kernel_is_noticed(name, monkeypatch):
    """Mutation: without the flip in w† the gradients are wrong, and the comparison above sees it."""
    x, kernel = normal(0, (2, 6, 6, 2), jnp.float32), normal(1, (3, 3, 2, 2), jnp.float32)
    right = value_and_gradients(lambda x, k: OPERATIONS[name](x, k), x, kernel)
    monkeypatch.setattr(convolution, "_adjoint", lambda kernel: kernel.swapaxes(2, 3))
    with pytest.raises(AssertionError):
        close(value_and_gradients(lambda x, k: OPERATIONS[name](x, k), x, kernel), right, 1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "VALID"}, r"kernel: \(7, 7\) does not fit in the padded image \(4, 4\)"),
        ({"padding": (1, 2, 3)}, "padding: expected"),
        ({"strides": 0}, "strides: expected"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        convolution.conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros((7, 7, 2, 3)), **arguments)
    with pytest.raises(ValueError, match="kernel: expected 2 channels"):
        convolution.conv_transpose(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 3)))
