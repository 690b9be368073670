"""Video files by PyAV, an extra (requirements-video.txt), which is imported here alone."""

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

_SUFFIXES = frozenset(".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv".split())


def is_video_name(path: Path) -> bool:
    """Whether a file is called as a video is."""
    return path.suffix.lower() in _SUFFIXES


def can_decode() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video file in order, grey: uint8 [H, W] each.

    Raises:
      ValueError: one line with the file and the reason: PyAV is missing, or it is no video.
    """
    if not can_decode():
        raise ValueError(
            f"{path}: video files need PyAV: pip install -r requirements-video.txt, or give a "
            "folder of frames"
        )
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="gray")
    except (av.error.FFmpegError, OSError, IndexError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a video ({reason})") from error


def write_mp4(path: Path, pictures: Iterable[np.ndarray], rate: int) -> None:
    """Writes uint8 [H, W, 3] pictures of even sides as H.264, `rate` a second; needs PyAV."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=rate)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
