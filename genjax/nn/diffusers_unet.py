"""Conversion between ``UNet`` and the ``UNet2DModel`` of diffusers: one network, two sets of names and layouts.

Convolutions are OIHW and matrices [out, in] in diffusers, HWIO and [in, out] in genjax. A 1 × 1 shortcut is a matrix in
genjax.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genjax.nn import embedding
from genjax.nn.unet import UNet
from genjax.types import Params

Tensors = Mapping[str, np.ndarray]
"""Weights by the names of diffusers."""

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3, "out_channels": 3, "center_input_sample": False, "time_embedding_type": "positional",
    "freq_shift": 0, "flip_sin_to_cos": True, "block_out_channels": (224, 448, 672, 896), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1, "downsample_padding": 1,
    "downsample_type": "conv", "upsample_type": "conv", "dropout": 0.0, "act_fn": "silu", "attention_head_dim": 8,
    "norm_num_groups": 32, "attn_norm_num_groups": None, "norm_eps": 1e-5, "resnet_time_scale_shift": "default",
    "add_attention": True, "class_embed_type": None, "num_class_embeds": None,
}  # fmt: skip
"""Default values of the fields of a ``config.json``."""

_ONLY = {
    "center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,), "downsample_padding": (0, 1), "downsample_type": ("conv",),
    "upsample_type": ("conv",), "act_fn": ("silu", "swish"), "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,), "num_class_embeds": (None,), "add_attention": (True, False),
}  # fmt: skip
_APART = ("sample_size", "time_embedding_dim", "num_train_timesteps")
"""Other fields without effect on an unconditional network with sinusoidal times."""
_LARGEST = {"in_channels": 64, "out_channels": 64, "layers_per_block": 64, "norm_num_groups": 4096}
_EMBED = {(False, 1): embedding.sinusoidal, (True, 0): embedding.sinusoidal_cosine_first}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_RESIDUAL = {
    "norm_1": "norm1", "conv_1": "conv1", "time": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}  # fmt: skip
_ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
_TOP = {
    "conv_in": "conv_in", "time_0": "time_embedding.linear_1", "time_1": "time_embedding.linear_2",
    "norm_out": "conv_norm_out", "conv_out": "conv_out",
}  # fmt: skip


def network(config: Mapping[str, Any]) -> UNet:
    """Make the network of a ``UNet2DModel``'s config.json.

    Raises:
      ValueError: ``UNet`` cannot express a value; the message names the field.
    """
    fields = {name: config.get(name, default) for name, default in DEFAULTS.items()}
    _check_fields(config, fields)
    widths, groups = tuple(fields["block_out_channels"]), fields["norm_num_groups"]
    _require(all(w % widths[0] == 0 for w in widths), "block_out_channels", widths, "multiples of the first")
    _require(fields["out_channels"] == fields["in_channels"], "out_channels", fields["out_channels"], "in_channels")
    waves = bool(fields["flip_sin_to_cos"]), fields["freq_shift"]
    _require(waves in _EMBED, "flip_sin_to_cos, freq_shift", waves, f"one of {tuple(_EMBED)}")
    scales, attends = fields["resnet_time_scale_shift"] == "scale_shift", bool(fields["add_attention"])
    norms = (groups,) if scales and attends else (None, groups)  # without, their middle attention has no norm
    _require(
        fields["attn_norm_num_groups"] in norms, "attn_norm_num_groups", fields["attn_norm_num_groups"], f"{groups}"
    )
    ups = _attended(fields, "up_block_types", ("UpBlock2D", "AttnUpBlock2D"), len(widths))
    return UNet(
        channels=widths[0],
        channel_mults=tuple(w // widths[0] for w in widths),
        num_res_blocks=fields["layers_per_block"],
        dropout=fields["dropout"],
        groups=groups,
        image_channels=fields["in_channels"],
        epsilon=fields["norm_eps"],
        attention_down=_attended(fields, "down_block_types", ("DownBlock2D", "AttnDownBlock2D"), len(widths)),
        attention_up=tuple(len(widths) - 1 - i for i in reversed(ups)),
        middle_attention=attends,
        head_channels=fields["attention_head_dim"],
        down_padding=1 if fields["downsample_padding"] else "SAME",
        embed=_EMBED[waves],
        modulation="scale" if scales else "add",
    )


def config(network: UNet, side: int) -> dict[str, Any]:
    """Make the config.json of this network as a ``UNet2DModel``; the inverse of ``network``.

    Args:
      network: network of genjax.
      side: height and width of the images, which turn ``attention_resolutions`` into levels.

    Raises:
      ValueError: diffusers has no such network.
    """
    _require(not network.num_classes, "num_classes", network.num_classes, "0")
    _require(not network.fourier, "fourier", network.fourier, "()")
    _require(network.down_padding in (1, "SAME"), "down_padding", network.down_padding, "1 or 'SAME'")
    levels = range(len(network.channel_mults))
    heights = (16,) if network.attention_resolutions is None else network.attention_resolutions
    by_height = tuple(level for level in levels if side // 2**level in heights)
    down = by_height if network.attention_down is None else network.attention_down
    up = by_height if network.attention_up is None else network.attention_up
    waves = next(waves for waves, embed in _EMBED.items() if embed == network.embed)
    kind = lambda where, level, at: ("Attn" if level in at else "") + f"{where}Block2D"
    return {
        "sample_size": side, "in_channels": network.image_channels, "out_channels": network.image_channels,
        "block_out_channels": [network.channels * multiplier for multiplier in network.channel_mults],
        "layers_per_block": network.num_res_blocks, "dropout": network.dropout, "act_fn": "silu",
        "down_block_types": [kind("Down", level, down) for level in levels],
        "up_block_types": [kind("Up", level, up) for level in reversed(levels)],
        "add_attention": network.middle_attention, "attention_head_dim": network.head_channels,
        "norm_num_groups": network.groups, "norm_eps": network.epsilon,
        "attn_norm_num_groups": network.groups if network.modulation == "scale" else None,
        "downsample_padding": 1 if network.down_padding == 1 else 0,
        "flip_sin_to_cos": waves[0], "freq_shift": waves[1],
        "resnet_time_scale_shift": "scale_shift" if network.modulation == "scale" else "default",
    }  # fmt: skip


def params(tensors: Tensors, shapes: Params, levels: int) -> Params:
    """Convert tensors of diffusers to parameters of ``UNet``, float32.

    Args:
      tensors: weights by the names of diffusers; attention may have its old names.
      shapes: shapes of the parameters, from ``jax.eval_shape`` of ``init``.
      levels: number of levels of the network.

    Raises:
      ValueError: tensors are missing, unexpected or of another shape; the message lists all of them.
    """
    given = {_renamed(name): np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [_name(tuple(part.key for part in path), levels) for path, _ in leaves]
    wrong = [f"missing {name}" for name in names if name not in given]
    wrong += [f"unexpected {name}" for name in sorted(set(given) - set(names))]
    converted = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        array = _to_layout(given[name], len(leaf.shape)) if name in given else np.zeros(leaf.shape, np.float32)
        if array.shape != leaf.shape:
            wrong.append(f"shape of {name}: expected {leaf.shape} in the layout of genjax, got {array.shape}")
        converted.append(array)
    if wrong:
        raise ValueError("tensors: they are not those of the network:\n  " + "\n  ".join(wrong))
    return jax.tree.unflatten(tree, converted)


def tensors(params: Params, levels: int) -> dict[str, np.ndarray]:
    """Convert parameters of ``UNet`` to tensors of diffusers; the inverse of ``params``."""
    converted = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, array = _name(tuple(part.key for part in path), levels), np.asarray(leaf)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        array = array[:, :, None, None] if name.endswith("conv_shortcut.weight") else array
        converted[name] = np.ascontiguousarray(array)
    return converted


def _check_fields(config: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuse unknown fields, and values of a kind or size that no network has."""
    known = {*DEFAULTS, *_APART}
    for name, value in config.items():
        _require(name.startswith("_") or name in known, name, value, "no such field")
    _require(
        config.get("_class_name", "UNet2DModel") == "UNet2DModel",
        "_class_name",
        config.get("_class_name"),
        "UNet2DModel",
    )
    _require(config.get("time_embedding_dim") is None, "time_embedding_dim", config.get("time_embedding_dim"), "null")
    for name, values in _ONLY.items():
        same = lambda value, name=name: (
            isinstance(value, bool) == isinstance(fields[name], bool) and value == fields[name]
        )
        fits = any(map(same, values))
        _require(fits, name, fields[name], f"one of {values}")
    for name, high in _LARGEST.items():
        _require(_whole(fields[name], 1, high), name, fields[name], f"a whole number from 1 to {high}")
    widths = fields["block_out_channels"]
    sizes = isinstance(widths, list | tuple) and 0 < len(widths) <= 16 and all(_whole(w, 1, 1 << 16) for w in widths)
    _require(sizes, "block_out_channels", widths, "up to 16 whole numbers from 1 to 65536")
    fits = all(width % fields["norm_num_groups"] == 0 for width in widths)
    _require(fits, "norm_num_groups", fields["norm_num_groups"], "a divisor of every number of channels")
    heads = fields["attention_head_dim"]
    _require(heads is None or _whole(heads, 1, 1 << 16), "attention_head_dim", heads, "null or a whole number")
    for name, above, below in (("dropout", -1, 1), ("norm_eps", 0, 1)):
        number = fields[name]
        good = type(number) in (int, float) and above < number < below and number >= 0
        _require(good, name, number, f"a number from 0 to below {below}")


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {value!r}; other networks are not covered")


def _attended(fields: Mapping[str, Any], name: str, kinds: tuple[str, str], levels: int) -> tuple[int, ...]:
    given = fields[name]
    good = isinstance(given, list | tuple) and len(given) == levels and all(kind in kinds for kind in given)
    _require(good, name, given, f"{levels} of {kinds}")
    return tuple(i for i, kind in enumerate(given) if kind == kinds[1])


def _renamed(name: str) -> str:
    head, _, kind = name.rpartition(".")
    block, _, part = head.rpartition(".")
    return f"{block}.{_OLD[part]}.{kind}" if "attentions." in block and part in _OLD else name


def _to_layout(array: np.ndarray, ndim: int) -> np.ndarray:
    if array.ndim == 4 and ndim == 2 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _name(path: tuple[str, ...], levels: int) -> str:
    """Translate ``down_1_0/conv_1/kernel`` to ``down_blocks.1.resnets.0.conv1.weight``."""
    kind = "bias" if path[-1] == "bias" else "weight"
    if path[0] in _TOP:
        return f"{_TOP[path[0]]}.{kind}"
    where, *at = path[0].removesuffix("_attention").split("_")
    if len(path) == 2:  # between levels
        level = int(at[0])
        if where == "down":
            return f"down_blocks.{level - 1}.downsamplers.0.conv.{kind}"
        return f"up_blocks.{levels - 1 - level}.upsamplers.0.conv.{kind}"
    attends = path[0].endswith("_attention")
    block, parts = ("attentions", _ATTENTION) if attends else ("resnets", _RESIDUAL)
    if where == "middle":
        return f"mid_block.{block}.{at[0] if at else 0}.{parts[path[1]]}.{kind}"
    level = int(at[0]) if where == "down" else levels - 1 - int(at[0])
    return f"{where}_blocks.{level}.{block}.{at[1]}.{parts[path[1]]}.{kind}"
