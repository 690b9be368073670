"""What a training run writes while it goes on: progress, metrics.jsonl, TensorBoard, pictures.

A run that is stopped and resumed leaves the same steps behind as an unbroken one. Images are
float32 `[N, H, W, C]` in [-1, 1], C = 1 or 3. Only the main process writes.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from absl import logging
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from engine.pixels import grid
from storage.files import write_text

METRICS_FILE = "metrics.jsonl"
REPORT = "report"  # the folder that people look into


def preview_file(stage: str) -> str:
    """The picture, in report/, of what a stage is trained on."""
    return f"inputs_{stage}.png"


def read_metrics(workdir: str) -> list[dict[str, Any]]:
    """The lines of `workdir`/metrics.jsonl in order, without a last one that a crash cut short.

    Raises:
      ValueError: a line before the last is no JSON (then something else wrote to the file).
    """
    path = os.path.join(workdir, METRICS_FILE)
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        *whole, _ = file.read().split("\n")  # what follows the last newline is unfinished, or ''
    lines = []
    for number, line in enumerate(whole, start=1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is no JSON; delete that line") from error
    return lines


def duration(seconds: float) -> str:
    """Seconds in words: '40 s', '14 min', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def bar_stream() -> TextIO | None:
    """What progress bars are drawn on: a terminal, a notebook's cell, or, for None, nothing."""
    if sys.stderr.isatty():
        return sys.stderr
    # A cell is no terminal and yet draws bars; what it gets on stderr looks like an error.
    return sys.stdout if type(sys.stdout).__module__ == "ipykernel.iostream" else None


class TrainingLog:
    """The log of one stage; use it as a context manager, or call `close`.

    Args:
      workdir: an existing folder or one to make.
      stage: the stage's name; a folder name of TensorBoard and of the pictures.
      first_step: the step that the run starts after, 0 or that of the checkpoint. What was logged
        for later steps of this stage is dropped, because it will be computed again.
      num_steps: the last step, for the time left.
    """

    def __init__(self, workdir: str, stage: str, *, first_step: int, num_steps: int) -> None:
        """Cuts the stage's records back to `first_step` and opens the outputs."""
        os.makedirs(workdir, exist_ok=True)
        self._workdir, self._stage, self._num_steps = workdir, stage, num_steps
        self._seconds_before = _cut_back(workdir, stage, first_step)
        # TensorBoard hides events from purge_step on; that of first_step itself is not repeated.
        folder = os.path.join(workdir, "tensorboard", stage)
        self._board = EventFile(folder, purge_step=first_step + 1)
        self._bar: tqdm | None = None
        if stream := bar_stream():
            self._bar = tqdm(
                total=num_steps, initial=first_step, desc=stage, unit="step", file=stream
            )
        self._start = self._last_time = time.monotonic()
        self._last_step = first_step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics after `step`.

        One line of metrics.jsonl: stage, step, steps_per_second (since the last line), seconds
        (that the stage has trained so far, over all its runs), metrics. A value that is NaN or
        infinite is null there, since JSON has no word for it.
        """
        now = time.monotonic()
        rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        values = {name: float(value) for name, value in metrics.items()}
        line = {
            "stage": self._stage,
            "step": step,
            "steps_per_second": rate,
            "seconds": self._seconds_before + now - self._start,
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
        }
        with open(os.path.join(self._workdir, METRICS_FILE), "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._board.scalars(step, {**values, "steps_per_second": rate})
        self._show(step, rate, values)

    def _show(self, step: int, rate: float, values: Mapping[str, float]) -> None:
        losses = {name: value for name, value in values.items() if "loss" in name} or values
        shown = {name: f"{value:.4g}" for name, value in losses.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        text = " ".join(f"{name}={value}" for name, value in shown.items())
        left = duration((self._num_steps - step) / rate) if rate > 0 else "unknown time"
        progress = f"{self._stage} step {step}/{self._num_steps}"
        logging.info("%s %s (%.2g steps/s, %s left)", progress, text, rate, left)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Puts a `grid` of each entry into TensorBoard and pictures/<stage>/<name>_<step>.png.

        Args:
          step: the step after which the images were made.
          images: name -> float32 [N, H, W, C] in [-1, 1].
        """
        folder = os.path.join(self._workdir, "pictures", self._stage)
        os.makedirs(folder, exist_ok=True)
        for name, batch in images.items():
            picture = grid(batch)
            self._board.image(step, name, picture)
            Image.fromarray(picture).save(os.path.join(folder, f"{name}_{step:07d}.png"))

    def preview(self, images: np.ndarray) -> None:
        """Puts a `grid` of what the stage is trained on into report/inputs_<stage>.png.

        Args:
          images: float32 [N, H, W, C] in [-1, 1].
        """
        folder = os.path.join(self._workdir, REPORT)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, preview_file(self._stage))
        Image.fromarray(grid(images)).save(path)
        logging.info("What stage %s is trained on: %s", self._stage, path)

    def close(self) -> None:
        """Flushes and closes the outputs."""
        self._board.close()
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "TrainingLog":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the outputs, also after an error."""
        self.close()


def _cut_back(workdir: str, stage: str, step: int) -> float:
    """Drops the lines of `stage` after `step`; the seconds it had trained until then."""
    lines = read_metrics(workdir)
    kept = [line for line in lines if line["stage"] != stage or line["step"] <= step]
    write_text(
        os.path.join(workdir, METRICS_FILE), "".join(json.dumps(line) + "\n" for line in kept)
    )
    return max((line["seconds"] for line in kept if line["stage"] == stage), default=0.0)


class EventFile:
    """A new event file in a folder; every method raises OSError where it cannot be written."""

    def __init__(self, folder: str, *, purge_step: int) -> None:
        """Makes file and folder; TensorBoard hides what earlier files hold from `purge_step` on."""
        os.makedirs(folder, exist_ok=True)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each named curve."""
        for name, value in values.items():
            self._add(Event(step=step, summary=summary.scalar(name, value)))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [h, w, 3]."""
        self._add(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()
