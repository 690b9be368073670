"""TensorBoard's event file, written at once.

tensorboardX's own `SummaryWriter` writes in a thread; when the disk is full the thread dies without
a word, and the program waits for it for ever.
"""

import os
import time
from collections.abc import Mapping

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


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
