"""The decoded copy: its images and masks stay in it, and nothing in it is taken on trust."""

import zipfile

import numpy as np
import pytest

from data import decoded

SIZE = 16


def square(shape, at):
    mask = np.zeros(shape, bool)
    mask[at : at + 4, 3:6] = True
    return mask


def images_of(count, name, masks=()):
    pixels = np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    paths = [f"{name}/{index}.png" for index in range(count)]
    labels, sizes = np.zeros(count, np.int64), np.full((count, 2), SIZE)
    orientations, sums = np.arange(count) % 9, [f"{index:064x}" for index in range(count)]
    columns = [name] * count, labels, list(masks), sizes, orientations, sums
    return decoded.Images(pixels, paths, *columns)


def written(path, masks=()):
    """A copy of five training images and of as many test images as there are masks."""
    parts = images_of(5, "good"), images_of(len(masks), "bad", masks)
    decoded.write_decoded(str(path), decoded.Decoded("mine", *parts))
    return decoded.read_decoded(str(path))


def test_masks_of_every_size(tmp_path):
    masks = [square((3, 5), 0), None, square((9, 7), 5), np.zeros((1, 1), bool)]
    for chosen in (masks, masks[:1], [None], []):
        found = written(tmp_path / "x.npz", chosen).test.masks
        for mask, expected in zip(found, chosen, strict=True):
            np.testing.assert_array_equal(mask, expected)
            assert mask is None or mask.dtype == bool
    assert found[1:] == []


@pytest.mark.parametrize("how", [(None, True), (1023, True), (4095, False)])
def test_how_images_were_decoded_is_in_the_copy(tmp_path, how):
    path, parts = str(tmp_path / "x.npz"), (images_of(5, "good"), decoded.no_images(SIZE))
    decoded.write_decoded(path, decoded.Decoded("mine", *parts, False, *how))
    for test in (True, False):
        read = decoded.read_decoded(path, test=test)
        assert (read.white_level, read.level_found) == how
        assert read.train.orientations.tolist() == [0, 1, 2, 3, 4]


def test_images_in_the_copy_are_indexed_as_an_array(tmp_path):
    rows, expected = written(tmp_path / "x.npz").train.images, images_of(5, "good").images
    assert len(rows) == 5 and rows.shape == expected.shape and rows.dtype == np.uint8
    for index in (
        0,
        -1,
        slice(1, 3),
        slice(None, None, -2),
        np.array([4, 0, 0]),
        np.array([], int),
    ):
        np.testing.assert_array_equal(rows[index], expected[index], strict=True)
    for index in (5, -6, np.array([7])):
        with pytest.raises(IndexError):
            rows[index]
    np.testing.assert_array_equal([*rows], expected)
    np.testing.assert_array_equal(rows.take(np.array([3, 1])), expected[[3, 1]])
    both = rows.take(np.array([3, 1])).join(rows)
    np.testing.assert_array_equal(both, np.concatenate([expected[[3, 1]], expected]))


def test_images_stay_those_of_their_copy(tmp_path):
    """Though another run puts a new copy in its place; a copy that is written over is noticed."""
    path = tmp_path / "x.npz"
    splits, expected = written(path), images_of(5, "good").images
    second = decoded.Decoded("mine", images_of(3, "good"), decoded.no_images(SIZE))
    decoded.write_decoded(str(path), second)
    np.testing.assert_array_equal(splits.train.images, expected)
    other = decoded.read_decoded(str(path))
    for change in (lambda data: data[:-1] + b"x", lambda data: data[:100]):
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(OSError, match=r"x.npz was changed while it was in use: start again"):
            other.train.images[2]


def test_every_bit_of_the_copy_is_checked(tmp_path):
    path = tmp_path / "x.npz"
    written(path, [square((3, 5), 0), None])
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in names:
            whole = path.read_bytes()
            place = whole.index(archive.read(name)) + archive.getinfo(name).file_size - 1
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=r"x.npz holds no decoded images .*Bad CRC-32"):
                decoded.read_decoded(str(path))
            path.write_bytes(whole)
    assert len(names) == 21 and decoded.read_decoded(str(path)).train.sums[4] == f"{4:064x}"


def altered(path, **arrays):
    """What reading says where some arrays of a copy are others."""
    written(path, [square((3, 5), 0), None])
    with np.load(path) as archive:
        content = {**archive, **arrays}
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"x.npz holds no decoded images") as caught:
        decoded.read_decoded(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.promise("R15")
@pytest.mark.parametrize("array", ["train_paths", "test_paths", "train_defects", "test_defects"])
@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "..", ".", "", "a/./b", "a//b", "a/", "a\0b"]
)
def test_names_in_a_copy_from_a_stranger_lead_nowhere_else(tmp_path, array, name, tries):
    count = 5 if array.startswith("train") else 2
    with tries("a decoded copy names files outside of their folder"):
        message = altered(tmp_path / "x.npz", **{array: np.array(["a"] * (count - 1) + [name])})
        assert f"{name!r} is no name of a file in a folder" in message or "no name of a" in message


def test_arrays_in_a_copy_from_a_stranger_fit_together(tmp_path):
    path, pixels = tmp_path / "x.npz", np.zeros((5, SIZE, SIZE, 3), np.uint8)
    assert "differ in length" in altered(path, train_images=pixels[:4])
    assert "not uint8 of rank 4" in altered(path, train_images=pixels.astype(np.float32))
    assert "not uint8 of rank 4" in altered(path, train_images=pixels[0])
    assert "not uint8 of rank 4" in altered(path, train_images=np.asfortranarray(pixels))
    assert "other shapes or types" in altered(path, train_images=pixels[:, 1:])
    assert "other shapes or types" in altered(path, train_labels=np.zeros(5))
    assert "is no name of a folder" in altered(path, test_defects=np.array(["a/b", "c"]))
    for sizes in ([[3, 5], [1, -1]], [[3, 5], [2**32, 2**32]], [[3, 5]]):
        assert "sizes of the masks make no sense" in altered(path, mask_sizes=np.array(sizes))
    assert "other sizes than they say" in altered(path, mask_sizes=np.array([[3, 6], [0, 0]]))


def test_a_compressed_copy_is_refused(tmp_path):
    """A small file could hold any number of gigabytes."""
    path = tmp_path / "x.npz"
    written(path)
    with np.load(path) as archive:
        content = dict(archive)
    np.savez_compressed(path, **content)
    with pytest.raises(ValueError, match="its arrays are compressed"):
        decoded.read_decoded(str(path))
