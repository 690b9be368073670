"""Which images a training step sees, and how pixels become numbers: NumPy only.

The draws of step s are a pure function of (seed, s): a resumed run sees the images of an unbroken
one, no iterator state is saved and nothing is decoded to be skipped. Batches gathered on the device
and batches streamed by tf.data come from these same draws.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

StepDraw = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
# draws(dims, seed, first_step, process=(index, count)) -> (indices, flips, corners, turns) of each
# step, endless
Draws = Callable[..., Iterator[StepDraw]]

# Independent random streams of one seed.
_ORDER, _FLIPS, _CALIBRATION, _CORNERS, _TURNS, _TESTED = range(6)
_LABELLED = 7  # of the draws of labelled images; 6 chooses them (data/labelled.py)


def scale(pixels: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] -> float32 in [-1, 1].

    2 x - 255 is exact and one multiplication rounds: the same bits in NumPy and in XLA, on
    any device, where x / 127.5 - 1 is one rounding more or less, as the compiler likes.
    """
    scaled = pixels.astype(np.float32)
    scaled *= 2  # in place: a batch is large
    scaled -= 255
    scaled *= np.float32(1 / 255)
    return scaled


def split(
    seed: int, num_images: int, share: float, *, pick_test: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted indices of the images for training, for calibration, and picked to be tested with.

    With `pick_test` as many are picked as are for calibration, else none.

    Raises:
      ValueError: with `pick_test`, the share leaves nothing to train on.
    """
    train, calibration = calibration_split(seed, num_images, share)
    if not pick_test:
        return train, calibration, train[:0]
    if share >= 0.5:
        raise ValueError(
            f"calibration {share} leaves nothing to train on, since with bad/ as many images again "
            "are tested with: choose less than 0.5"
        )
    train, test = picked_for_test(seed, train, len(calibration))
    return train, calibration, test


def calibration_split(seed: int, num_images: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the images that are trained on, and of the calibration images.

    At least one is for calibration if `share` is not 0, and never all.
    """
    order = np.random.default_rng((seed, _CALIBRATION)).permutation(num_images)
    count = min(max(round(num_images * share), 1), num_images - 1) if share else 0
    return np.sort(order[count:]), np.sort(order[:count])


def picked_for_test(seed: int, indices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`indices` [N] without, and those of, `count` images to test with; both sorted, never all."""
    order = np.random.default_rng((seed, _TESTED)).permutation(indices)
    count = min(count, len(indices) - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def batch_indices(
    seed: int, step: int, batch_dims: tuple[int, ...], num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which images step `step` sees, over all devices, and which of them flipped.

    The steps cut up an endless row of permutations of all images, one an epoch, so each epoch sees
    every image once, and a batch larger than the data set repeats images.

    Returns:
      int64 indices in [0, num_images) and bool flips, both [*batch_dims].
    """
    if num_images < 1:
        raise ValueError("no images to draw batches from")
    size = math.prod(batch_dims)
    epochs, places = np.divmod(step * size + np.arange(size), num_images)
    indices = np.empty(size, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng((seed, _ORDER, epoch)).permutation(num_images)
        indices[epochs == epoch] = order[places[epochs == epoch]]
    flips = np.random.default_rng((seed, _FLIPS, step)).random(size) < 0.5
    return indices.reshape(batch_dims), flips.reshape(batch_dims)


def batch_corners(
    seed: int, step: int, batch_dims: tuple[int, ...], room: tuple[int, int]
) -> np.ndarray:
    """Top and left of the crops of step `step`, uniform in [0, room]: int64 [*batch_dims, 2]."""
    rng = np.random.default_rng((seed, _CORNERS, step))
    return rng.integers(0, room, (*batch_dims, 2), endpoint=True)


def batch_turns(
    seed: int, step: int, batch_dims: tuple[int, ...], quarters: tuple[int, ...]
) -> np.ndarray:
    """Quarter turns of the crops of step `step`, uniform among `quarters`: int64 [*batch_dims]."""
    rng = np.random.default_rng((seed, _TURNS, step))
    return np.array(quarters, np.int64)[rng.integers(0, len(quarters), batch_dims)]


def crop_room(images: np.ndarray, crop: int) -> tuple[int, int]:
    """Pixels by which a crop of side `crop` can move in `images` [N, H, W, C]; 0: whole images.

    Raises:
      ValueError: the crop is larger than the images.
    """
    height, width = images.shape[1:3]
    if crop < 0 or crop > min(height, width):
        raise ValueError(
            f"data.crop {crop} does not fit images of {height}x{width} px: choose at most "
            f"{min(height, width)}, or 0 for whole images"
        )
    return (height - crop, width - crop) if crop else (0, 0)


def quarter_turns(rotation: int) -> tuple[int, ...]:
    """The multiples of `rotation` degrees, in quarter turns; 0: none but the image as it is.

    Raises:
      ValueError: another rotation than 0, 90 or 180.
    """
    if rotation not in (0, 90, 180):
        raise ValueError(
            f"data.rotation {rotation} is not 0, 90 or 180: choose 90 for quarter turns, 180 for "
            "half turns, 0 for none"
        )
    return tuple(range(0, 4, rotation // 90)) if rotation else (0,)


def draws(
    num_images: int, *, flip: bool, rotation: int = 0, room: tuple[int, int] = (0, 0)
) -> Draws:
    """Endless draws from `num_images` images.

    Args:
      num_images: how many there are.
      flip: whether each crop is mirrored, left to right, every other time.
      rotation: degrees, 90 or 180, by whose multiples each crop is turned, after any mirroring;
        0: none is.
      room: pixels by which crops may move, down and right.

    Returns:
      `draws(dims, seed, first_step, process=(index, count))`, an iterator over the draws of steps
      first_step, first_step + 1, ...: indices (int32) and flips (bool), both [*dims], top and left
      of the crops (int32) [*dims, 2], and their quarter turns as in `np.rot90` (int32) [*dims],
      where dims are (local devices, *leading, batch per device). All devices of all processes
      together see the images that one device would see.

    Raises:
      ValueError: another rotation.
    """
    quarters = quarter_turns(rotation)

    def draw(
        dims: tuple[int, ...], seed: int, first_step: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[StepDraw]:
        (index, count), (local, *leading, batch) = process, dims
        devices = local * count

        def mine(drawn: np.ndarray) -> np.ndarray:
            split = drawn.reshape(*leading, devices, batch, *drawn.shape[len(leading) + 1 :])
            by_device = np.moveaxis(split, len(leading), 0)
            return by_device[index * local : (index + 1) * local]

        whole = (*leading, devices * batch)
        for step in itertools.count(first_step):
            indices, flips = batch_indices(seed, step, whole, num_images)
            corners = batch_corners(seed, step, whole, room)
            turns = batch_turns(seed, step, whole, quarters)
            yield (
                mine(indices.astype(np.int32)),
                mine(flips & flip),
                mine(corners.astype(np.int32)),
                mine(turns.astype(np.int32)),
            )

    return draw


def labelled_draws(
    num_normal: int,
    num_labelled: int,
    *,
    flip: bool,
    rotation: int = 0,
    room: tuple[int, int] = (0, 0),
) -> Draws:
    """Endless draws for dims (devices, 2, batch): [0] of normal images, [1] of labelled ones.

    The labelled images have the indices behind those of the normal ones. Each row goes through all
    of its images before one comes again; without labelled images the second is of normal ones too.
    The other arguments, and what is drawn, are those of `draws`.
    """
    normal, labelled = (
        draws(count, flip=flip, rotation=rotation, room=room)
        for count in (num_normal, num_labelled or num_normal)
    )
    first = num_normal if num_labelled else 0

    def draw(
        dims: tuple[int, ...], seed: int, first_step: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[StepDraw]:
        local, rows, batch = dims
        if rows != 2:
            raise ValueError(f"labelled batches have two rows, not {rows}")
        other = int(np.random.SeedSequence((seed, _LABELLED)).generate_state(1)[0])
        both = (
            normal((local, batch), seed, first_step, process),
            labelled((local, batch), other, first_step, process),
        )
        for (indices, *a), (others, *b) in zip(*both, strict=True):
            pairs = zip([indices, *a], [others + np.int32(first), *b], strict=True)
            stacked = [np.stack(pair, axis=1) for pair in pairs]
            yield stacked[0], stacked[1], stacked[2], stacked[3]

    return draw
