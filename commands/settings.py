"""What each field of a config may hold: all in one place, asked before anything is written.

A field is known by its last name, for a name means one thing in every section. What a section names
by `fn` of the user's own has fields of its own, which its function judges (engine/make.py), and so
has a method of the user's own.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

_OURS = (
    "fanogan_jax",
    "ae_jax",
    "contrario_jax",
    "few_shot_jax",
    "diffusion_jax",
    "video_jax",
    "optax",
)
# What commands/ read: the sections have these fields, and no others but those of `RULES`.
_NEEDED = {
    "data": (
        *("category", "root", "folder", "prepared", "image_size", "calibration"),
        *("flip", "rotation", "brightness", "resident"),
    ),
    "threshold": ("false_alarm_rate",),
    "evaluation": ("pixel_size", "metrics"),
    "every": ("log", "save", "pictures"),
    "method": ("fn",),
}
_STAGES = (
    "gan",
    "encoding",
    "training",
    "head_training",
    "labelled_training",
)  # of our methods, likewise
# What our methods read besides these: networks, and how images are corrupted, scored and tuned for.
_SECTIONS = (
    *("generator", "critic", "encoder", "autoencoder", "head", "latent", "trunk", "scorer"),
    "members",
    *("denoiser", "diffusion"),
    *("noise", "corruption", "patches", "score", "tuning"),
    *("clips", "spatial", "temporal", "pseudo", "statistics"),
)
_MOST = 10**9


class Rule(NamedTuple):
    """What a field may hold."""

    text: str  # 'a whole number from 1 to 9', as errors say it
    holds: Callable[[Any], bool]


def _whole(low: int, high: int = _MOST) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Rule(f"a whole number from {low} to {high}", holds)


def _number(low: float, high: float, *, low_too: bool = True, high_too: bool = True) -> Rule:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return False
        return low <= value <= high and (low_too or value > low) and (high_too or value < high)

    ends = f"{'[' if low_too else '('}{low:g}, {high:g}{']' if high_too else ')'}"
    return Rule(f"a number in {ends}", holds)


def _one_of(*values: Any) -> Rule:
    def holds(value: Any) -> bool:
        return any(type(value) is type(each) and value == each for each in values)

    return Rule(f"one of {', '.join(map(repr, values))}", holds)


def _either(one: Rule, other: Rule) -> Rule:
    return Rule(
        f"{one.text}, or {other.text}", lambda value: one.holds(value) or other.holds(value)
    )


def _each(rule: Rule, least: int = 1, most: int = 64) -> Rule:
    """A tuple, or the list that JSON makes of it."""

    def holds(value: Any) -> bool:
        listed = isinstance(value, tuple | list) and least <= len(value) <= most
        return listed and all(map(rule.holds, value))

    count = f"{least} to {most}" if least < most else f"{most}"
    return Rule(f"{count} values, each {rule.text}", holds)


def _ascending(rule: Rule) -> Rule:
    """A smallest and a largest value."""
    pair = _each(rule, 2, 2)
    return Rule(
        f"two values, the first not above the second, each {rule.text}",
        lambda value: pair.holds(value) and value[0] <= value[1],
    )


_FLAG = _one_of(True, False)
_SHARE, _SOME = _number(0, 1), _number(0, 1, low_too=False)
_DECAY, _WEIGHT = _number(0, 1, high_too=False), _number(0, 1e9)
_SIZE, _SIDE = _whole(1, 2**16), _whole(0, 2**14)
_PERIOD = Rule(f"{_whole(1).text}, or 0: off", _whole(0).holds)
_TEXT = Rule("a text in one line", lambda value: isinstance(value, str) and "\0" not in value)
_MAPS = _one_of("residual", "head", "product")
_PLACES = _one_of("features", "pixels")
_RESIDUALS = _one_of("squared", "absolute", "structure")
_NORMALISATION = _one_of("none", "pixel")
_LEVEL, _COUNT = _whole(0, 10**4), _whole(1, 10**4)

# By the last name of a field, or, where that means two things, by the last two.
RULES: Mapping[str, Rule] = {
    "seed": _whole(0, 2**32 - 1),
    **dict.fromkeys(("name", "fn", "category", "root", "folder", "prepared"), _TEXT),
    **dict.fromkeys(("textures", "metrics", "labelled", "labelled_kind"), _TEXT),
    **dict.fromkeys(("unsupervised", "few_shot"), _TEXT),
    # data
    "image_size": _whole(8, 2**14),
    "crop": _SIDE,
    "calibration": _DECAY,
    "rotation": _one_of(0, 90, 180),
    "white_level": _either(_one_of(0), _whole(255, 65535)),
    "max_pixels": _whole(64, 2**40),
    **dict.fromkeys(("flip", "brightness", "resident"), _FLAG),
    # clips
    "data.width": _whole(8, 2**14),
    "frames": _whole(3, 1024),
    "strides": _each(_whole(1, 64)),
    "blur": _number(0, 64),
    "gain": _number(0, 1e6, low_too=False),
    # judgement
    "false_alarm_rate": _number(0, 1, low_too=False, high_too=False),
    "false_regions": _number(0, 1e6, low_too=False),
    **dict.fromkeys(("cost_of_miss", "cost_of_false_alarm"), _WEIGHT),
    "defect_rate": _number(0, 1, low_too=False, high_too=False),
    "leave_one_out": _FLAG,
    "pixel_size": _SIDE,
    # networks
    "latent": _whole(1, 2**20),
    "features": _each(_SIZE),
    "head.features": _each(_SIZE, 2, 2),
    "dilations": _each(_SIZE),
    **dict.fromkeys(("width", "branch", "blocks", "convolutions", "fold", "bottleneck"), _SIZE),
    "halvings": _whole(0, 4),
    "denoiser.blocks": _whole(1, 64),
    **dict.fromkeys(("spatial.convolutions", "temporal.convolutions"), _whole(0, 64)),
    **dict.fromkeys(("transposed", "sspcab", "skips"), _FLAG),
    "scorer.scales": _one_of(1, 2),
    "temperature": _number(0, 1e3, low_too=False),
    "boundary": _WEIGHT,
    "dtype": _one_of("float32", "bfloat16"),
    # training
    **dict.fromkeys(("epochs", "samples", "num_steps", "warmup_steps"), _whole(0)),
    **dict.fromkeys(("spatial_steps", "temporal_steps"), _whole(1)),
    "batch_size": _SIZE,
    "n_critic": _whole(1, 1000),
    **dict.fromkeys(("learning_rate", "init_value", "peak_value", "end_value"), _number(0, 1e3)),
    "weight_decay": _number(0, 1e3),
    **dict.fromkeys(("b1", "b2", "decay", "averaging"), _DECAY),
    "eps": _number(0, 1),
    "initial_scale": _WEIGHT,
    "eps_in_sqrt": _FLAG,
    "clip": _number(0, 1e9, low_too=False),
    **dict.fromkeys(("log", "save", "pictures"), _PERIOD),
    # losses
    **dict.fromkeys(("penalty", "latent_norm_weight", "sspcab_weight", "head_weight"), _WEIGHT),
    **dict.fromkeys(("atypical_weight", "simplex_weight", "pixel_weight"), _WEIGHT),
    "atypical": _DECAY,
    "atypical_start": _whole(0),
    **dict.fromkeys(("metric_weight", "entropy_weight", "margin"), _WEIGHT),
    "reference_draws": _whole(0, 10**6),
    **dict.fromkeys(("corrupted_weight", "corrupted"), _SHARE),
    "max_weight": _number(0, 1e9, low_too=False),
    "loss.levels": _ascending(_LEVEL),
    "noise": _number(0, 10),
    "lighting": _DECAY,
    **dict.fromkeys(("per_region", "graded", "fade"), _FLAG),
    # corruption
    "max_patches": _whole(1, 64),
    "side": _ascending(_SOME),
    "opacity": _ascending(_SOME),
    "clean": _SHARE,
    **dict.fromkeys(("weights.patches", "weights.seamless"), _WEIGHT),
    # pseudo-anomalies
    "share": _SHARE,
    "move": _whole(0, 1024),
    "mix": _ascending(_SHARE),
    # patches
    "reference": _one_of("training", "image"),
    "patches.side": _whole(1, 63),
    "scales": _each(_whole(1, 64)),
    "floor": _DECAY,
    # noise levels
    "num_levels": _COUNT,
    # scores
    **dict.fromkeys(("kappa", "feature_weight", "weight"), _WEIGHT),
    "by_place": _FLAG,
    "stride": _whole(1, 2**14),
    "smoothing": _number(0, 1e3),
    "map": _MAPS,
    "image_score": _one_of("max", "top", "sum", "mean", "A"),
    "normalise": _NORMALISATION,
    "top": _SOME,
    "two_sided": _FLAG,
    "mean": _WEIGHT,
    "deviation": _number(0, 1e9, low_too=False),
    "map_of": _PLACES,
    "start": _LEVEL,
    **dict.fromkeys(("steps", "draws"), _whole(1, 1000)),
    **dict.fromkeys(("adaptive", "fusion"), _FLAG),
    "probe_smoothing": _number(0, 1e3),
    "residual": _RESIDUALS,
    "limits": _each(_each(_number(-1e9, 1e9), 3, 3), 0, 1000),
    "levels": _each(_number(0, 1, low_too=False, high_too=False)),
    "windows": _each(_whole(1, 64)),
    # tuning
    "tuning.corrupted_weights": _each(_SHARE, 0),
    "tuning.smoothing": _each(_number(0, 1e3)),
    "tuning.maps": _each(_MAPS),
    "tuning.maps_of": _each(_PLACES),
    "tuning.sides": _each(_one_of("one", "two")),
    "tuning.tops": _each(_SOME),
    "tuning.normalise": _each(_NORMALISATION),
    "tuning.draws": _COUNT,
    "tuning.starts": _each(_LEVEL),
    "tuning.steps": _each(_whole(1, 1000)),
    "tuning.noise_draws": _each(_whole(1, 1000)),
    "tuning.residuals": _each(_RESIDUALS),
}


def rule_of(path: str) -> Rule | None:
    """The rule of a dotted field; None where there is none."""
    *_, section, name = ("", *path.split("."))
    return RULES.get(f"{section}.{name}") or RULES.get(name)


def require_legal(config: ConfigDict | FrozenConfigDict) -> None:
    """Raises ValueError, one line about all fields that hold what they may not."""
    content = config.to_dict()
    common = (*_NEEDED, "seed", "name")
    method = content.get("method")
    if isinstance(method, Mapping) and not _is_ours(method):  # its sections are its own
        content = {name: value for name, value in content.items() if name in common}
    known = (*common, *_STAGES, *_SECTIONS)
    unknown = [
        f"{name}: no method reads such a section{did_you_mean(name, known)}"
        for name in content
        if name not in known
    ]
    faults = [*_lacking(content), *unknown, *_faults(content, ""), *_crop_faults(content)]
    if faults:
        raise ValueError("; ".join(faults))


def _crop_faults(content: Mapping[str, Any]) -> Iterator[str]:
    data = content.get("data")
    if not isinstance(data, Mapping):
        return
    side, crop = data.get("image_size"), data.get("crop", 0)
    legal = RULES["image_size"].holds(side) and RULES["crop"].holds(crop)
    if legal and crop > side:
        yield (
            f"data.crop={crop} does not fit images of {side}x{side} px: it is not from 1 to "
            "data.image_size, or 0 for whole images"
        )


def _lacking(content: Mapping[str, Any]) -> Iterator[str]:
    for section, names in _NEEDED.items():
        there = content.get(section)
        if not isinstance(there, Mapping):
            yield f"{section} is no section of the config: configs/base.py shows what it holds"
            continue
        yield from (f"{section}.{name} is missing" for name in names if name not in there)
    yield from (f"{name} is missing" for name in ("seed", "name") if name not in content)


def _faults(section: Mapping[str, Any], path: str) -> Iterator[str]:
    known = [name.rpartition(".")[-1] for name in RULES]
    for name, value in section.items():
        here = f"{path}.{name}" if path else name
        rule = rule_of(here)
        if isinstance(value, Mapping):
            if _is_ours(value):
                yield from _faults(value, here)
        elif rule and not rule.holds(value):
            yield f"{here}={_shown(value)} is not {rule.text}"
        elif not rule and path in (*_NEEDED, *_STAGES):
            yield f"{here}: there is no such field{did_you_mean(name, known)}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return "a number of more digits than can be shown"


def _is_ours(section: Mapping[str, Any]) -> bool:
    """Whether no function of the user's own reads the section."""
    fn = section.get("fn")
    return not isinstance(fn, str) or fn.partition(":")[0].partition(".")[0] in ("", *_OURS)


def unknown_field(config: Mapping[str, Any], path: str) -> str:
    """Why the dotted `path` cannot be set in `config`, with what may be meant; '' where it can."""
    section: Any = config
    names = path.split(".")
    for depth, name in enumerate(names):
        if not isinstance(section, Mapping | ConfigDict) or name not in section:
            known = [*_leaves(config)]
            near = [each for each in known if each.split(".")[-1] == names[-1]]
            hint = did_you_mean(path, known) or (f": did you mean {near[0]}?" if near else "")
            return f"{'.'.join(names[: depth + 1])}: there is no such field{hint}"
        section = section[name]
    return ""


def _leaves(section: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in section.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping | ConfigDict):
            yield from _leaves(value, here)
        else:
            yield here


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """': did you mean seed?' where a known name is near, else ''."""
    near = difflib.get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else ""
