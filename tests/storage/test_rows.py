"""Arrays in temporary files, against the same in memory."""

import errno
import os

import numpy as np
import pytest

from storage.files import write_npz
from storage.rows import Bytes, temporary


def filled(folder, arrays):
    rows = temporary(str(folder))
    for array in arrays:
        rows.append(array)
    return rows


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, [("cost", "f4"), ("count", "u4")]])
@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 2)])
def test_rows_are_indexed_as_an_array(tmp_path, dtype, shape):
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    parts = [
        rng.integers(1, 100, (count, *shape, size), np.uint8).view(dtype)[..., 0]
        for count in (2, 0, 5)
    ]
    rows, expected = filled(tmp_path, parts), np.concatenate(parts)
    assert len(rows) == 7 and rows.shape == expected.shape and rows.dtype == expected.dtype
    arrays = np.array([6, 0, 0]), np.array([], int), np.arange(7) > 4
    for index in (0, -1, slice(2, 5), slice(5, 2), slice(None), slice(6, 0, -2), *arrays):
        np.testing.assert_array_equal(rows[index], expected[index], strict=True)
    np.testing.assert_array_equal(list(rows), expected)
    with pytest.raises(IndexError):
        rows[7]


def test_the_file_is_in_the_folder_without_a_name(tmp_path):
    rows = filled(tmp_path, [np.zeros((4, 100))])
    number = rows._file._number
    assert os.fstat(number).st_dev == os.stat(tmp_path).st_dev
    assert os.fstat(number).st_size == 3200 and not list(tmp_path.iterdir())
    del rows
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    rows = filled(tmp_path, [np.zeros(4)])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=f"in {tmp_path} .No space left on device.: free space"):
        rows.append(np.zeros(4))


def test_an_archive_is_what_numpy_writes(tmp_path):
    maps = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    rows = filled(tmp_path, [maps[:2], maps[2:]])
    path = tmp_path / "x.npz"
    write_npz(str(path), {"maps": rows, "map_max": np.float32(2), "none": maps[:0]})
    with np.load(path, allow_pickle=False) as found:
        assert sorted(found) == ["map_max", "maps", "none"]
        np.testing.assert_array_equal(found["maps"], maps, strict=True)
        assert found["map_max"] == 2 and found["none"].shape == (0, 4, 3)
    np.savez_compressed(tmp_path / "numpy.npz", maps=maps, map_max=np.float32(2), none=maps[:0])
    assert path.read_bytes() == (tmp_path / "numpy.npz").read_bytes()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_archive_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch, error):
    path = tmp_path / "x.npz"
    path.write_text("old")
    (tmp_path / "x.npz.tmp").write_text("left over by a run that was killed")
    rows = filled(tmp_path, [np.zeros((2, 3))])

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Bytes, "read", fail)
        with pytest.raises(error):
            write_npz(str(path), {"maps": rows})
    assert os.listdir(tmp_path) == ["x.npz"] and path.read_text() == "old"
    write_npz(str(path), {"maps": rows})
    assert os.listdir(tmp_path) == ["x.npz"]
