"""Which categories may be mirrored or turned: where the outcome would pass for another good part.

A network takes for normal what it was trained on: a mirror image or a turn that would be a defect,
such as a left-hand thread or a mirrored print, must not be among it. Of categories that are not in
the table nothing is known, so nothing is done to them unless the command line says so.
"""

from typing import NamedTuple


class Augmentation(NamedTuple):
    """What may be done to the training images of a category."""

    flip: bool  # mirrored, left to right
    rotation: int  # turned by multiples of so many degrees: 90 or 180; 0: not
    reason: str


_TABLE = {
    "bottle": Augmentation(True, 90, "a round mouth seen from above: every side is alike"),
    "cable": Augmentation(
        False, 0, "three wires have places by colour: a mirror image or a turn is a swapped cable"
    ),
    "capsule": Augmentation(
        False, 0, "print, and a side for each colour: mirrored or turned, it is a misprint"
    ),
    "carpet": Augmentation(
        True, 180, "warp and weft differ: a quarter turn lays the weave across, others keep it"
    ),
    "demo": Augmentation(
        False, 0, "light from the upper left, and a keyway on top: no good part looks otherwise"
    ),
    "grid": Augmentation(
        True, 180, "the mesh has a long and a short way: a quarter turn exchanges them"
    ),
    "hazelnut": Augmentation(True, 90, "nuts lie at any angle, and either hand is as likely"),
    "leather": Augmentation(True, 90, "a grain without direction"),
    "metal_nut": Augmentation(
        False,
        90,
        "lies at any angle; its teeth turn one way, and mirrored it is a nut upside down, the "
        "defect 'flip'",
    ),
    "pill": Augmentation(False, 0, "print: mirrored or turned, it is a misprint"),
    "screw": Augmentation(
        False, 90, "lies at any angle; a mirror image has a left-hand thread, which no good one has"
    ),
    "tile": Augmentation(True, 90, "speckles without direction"),
    "toothbrush": Augmentation(
        True, 0, "both sides are alike; the head points one way, and colours of bristles with it"
    ),
    "transistor": Augmentation(
        False, 0, "the leads point one way, and a part that lies otherwise is a defect"
    ),
    "wood": Augmentation(True, 180, "the grain has a direction, which mirror and half turn keep"),
    "zipper": Augmentation(
        False, 0, "runs one way; its teeth alternate, and mirrored they begin on the other side"
    ),
}


def of(category: str) -> Augmentation:
    """What may be done to `category`; nothing, where it is not in the table."""
    return _TABLE.get(category) or Augmentation(
        False,
        0,
        f"nothing is known of {category}: where parts mirrored, or turned, are good ones too, "
        "--config.data.flip=True --config.data.rotation=90",
    )
