"""How much of an image is left at each noise level: schedules, which a config names by `fn`.

A noised image is sqrt(abar_t) x + sqrt(1 - abar_t) noise (Ho et al. 2020, arXiv 2006.11239, eq. 4)
at level t from 0, the image itself, to the schedule's last. A schedule is abar, float32
[levels + 1], which falls from 1. However many levels it has, the last has as much noise as that of
1,000 levels.
"""

import numpy as np
from numpy.typing import NDArray

Schedule = NDArray[np.float32]
"""abar of each level, [levels + 1], falling from 1."""

_ORIGINAL = 1000  # levels that the betas are given for


def linear(num_levels: int, *, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Betas that rise linearly (Ho et al. 2020): abar_t is the product of 1 - beta of 1 to t."""
    return _from_betas(np.linspace(first, last, num_levels))


def scaled_linear(num_levels: int, *, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """Betas whose roots rise linearly, GLAD's (Rombach et al. 2022, arXiv 2112.10752)."""
    return _from_betas(np.linspace(first**0.5, last**0.5, num_levels) ** 2)


def cosine(num_levels: int, *, offset: float = 0.008) -> Schedule:
    """A squared cosine (Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 17); no beta above 0.999."""
    times = (np.arange(num_levels + 1) / num_levels + offset) / (1 + offset)
    kept = np.cos(times * np.pi / 2) ** 2
    betas = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    return np.asarray(np.concatenate([[1.0], np.cumprod(1 - betas)]), np.float32)


def _from_betas(betas: np.ndarray) -> Schedule:
    """Of fewer levels than 1,000 each takes a greater step."""
    betas = np.minimum(betas * _ORIGINAL / len(betas), 0.999)
    return np.asarray(np.concatenate([[1.0], np.cumprod(1 - betas)]), np.float32)


def noise_to_signal(schedule: Schedule) -> NDArray[np.float32]:
    """sqrt((1 - abar) / abar) of each level: [levels + 1], rising from 0."""
    ratio: NDArray[np.float32] = np.sqrt((1 - schedule) / schedule)
    return ratio


def levels_of(start: int, steps: int) -> tuple[int, ...]:
    """The levels that a chain of `steps` goes through, evenly from `start` down; next to last is 0.

    >>> levels_of(100, 4), levels_of(0, 1)
    ((100, 75, 50, 25), (0,))

    Raises:
      ValueError: two steps would be of one level.
    """
    levels = tuple(int(level) for level in np.round(np.linspace(start, 0, steps + 1))[:-1])
    if len(set(levels)) < steps or (steps > 1 and not levels[-1]):
        raise ValueError(
            f"score.steps {steps} from level {start} down have no level each: choose score.start "
            f"of {steps} at least, or 1 step"
        )
    return levels


def refuse_above(schedule: Schedule, **levels: int) -> None:
    """Raises ValueError where one of the named `levels` is above the schedule's last."""
    last = len(schedule) - 1
    for name, level in levels.items():
        if level > last:
            raise ValueError(
                f"{name.replace('__', '.')} {level} is above the last level of the schedule, "
                f"{last}: choose one from 0 to {last}, or more diffusion.num_levels"
            )
