"""Pictures to take content from: a folder of the user's, read as it is."""

import numpy as np
import pytest
from PIL import Image

from data import textures


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def three_bands(height, width):
    """Grey 200 in the middle square and 10 outside of it: uint8 [height, width, 3]."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = np.full((height, width, 3), 10, np.uint8)
    pixels[top : top + side, left : left + side] = 200
    return pixels


def test_nested_folders_mixed_sizes_and_grey_images_give_one_array(tmp_path):
    save(tmp_path / "a.png", np.full((9, 30, 3), (250, 0, 7)))
    save(tmp_path / "dots" / "b.jpg", np.full((40, 20), 90))
    save(tmp_path / "dots" / "deep" / "c.bmp", np.full((8, 8, 3), (1, 2, 3)))
    (tmp_path / "dots" / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden" / "d.png", np.zeros((8, 8, 3)))
    loaded = textures.read_textures(tmp_path, 8)
    assert loaded.dtype == np.uint8 and loaded.shape == (3, 8, 8, 3)
    colours = [(250, 0, 7), (90, 90, 90), (1, 2, 3)]
    for square, colour in zip(loaded, colours, strict=True):
        np.testing.assert_allclose(square.astype(int), np.broadcast_to(colour, (8, 8, 3)), atol=1)


@pytest.mark.parametrize(("height", "width"), [(12, 36), (36, 12), (13, 40)])
def test_the_middle_square_is_kept_whole(tmp_path, height, width):
    """It fills the picture; where it does not begin at a pixel, the border is a mixture."""
    save(tmp_path / "image.png", three_bands(height, width))
    (square,) = textures.read_textures(str(tmp_path), 12)
    exact = (height - width) % 2 == 0
    inner = square if exact else square[1:-1, 1:-1]
    np.testing.assert_array_equal(inner, 200)


def test_what_lies_beside_what_in_the_middle_square_is_kept(tmp_path):
    """Not turned, not mirrored, not cut: its four quarters have four colours."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    quarters = {(0, 5): 20, (0, 10): 80, (5, 5): 140, (5, 10): 230}
    for (row, column), value in quarters.items():
        pixels[row : row + 5, column : column + 5] = value
    save(tmp_path / "image.png", pixels)
    (square,) = textures.read_textures(tmp_path, 30)
    corners = [square[i, j].tolist() for i in (2, -3) for j in (2, -3)]
    assert corners == [[value] * 3 for value in (20, 80, 140, 230)]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"corruption.textures: {tmp_path} holds no") as caught:
        textures.read_textures(tmp_path, 8)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    save(tmp_path / "image.png", np.zeros((4, 4, 3)))
    for path in (tmp_path / "lost", tmp_path / "image.png"):
        with pytest.raises(ValueError, match=f"corruption.textures: {path} is no folder"):
            textures.read_textures(path, 8)


def test_all_unreadable_files_are_listed_in_one_line(tmp_path):
    save(tmp_path / "good.png", np.zeros((8, 8, 3)))
    (tmp_path / "noise.png").write_bytes(b"these are no pixels")
    save(tmp_path / "deep" / "cut.png", np.random.default_rng(0).integers(0, 256, (20, 20, 3)))
    whole = (tmp_path / "deep" / "cut.png").read_bytes()
    (tmp_path / "deep" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"corruption.textures: 2 bad files") as caught:
        textures.read_textures(tmp_path, 8)
    message = str(caught.value)
    assert "noise.png" in message and "cut.png" in message
    assert "good.png" not in message and "\n" not in message
