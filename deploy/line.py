"""The production line as the service sees it: photos in, decided on in batches, answers out.

One thread takes what is waiting, at most `SIZES[-1]` photos, waits a few milliseconds for more,
scores them as one batch of the next power of two, writes the journal, and answers. So the journal,
the watch and the answers have one order.
"""

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from data.photos import Photo
from deploy.journal import Entry, Journal
from deploy.prediction import Prediction, decide_on, row_of, watch_row
from deploy.served import ServedModel, compile_sizes
from evaluation.drift import Watch, start_watch

SIZES = (1, 2, 4, 8, 16, 32)
"""Of batches, each of which is compiled once."""

WAITING = 128
"""So many photos may be waiting; the next is told to come again."""

RECENT = 50
"""So many of the last parts are kept to be looked at."""

_PAUSE = 0.004  # seconds that a photo waits for others, at most


class FullError(Exception):
    """Too many photos are waiting."""


class Part(NamedTuple):
    """One answered photo."""

    row: Mapping[str, Any]  # as the journal has it
    photo: Photo
    prediction: Prediction  # `marked` as large as the photo is shown


class _Waiting(NamedTuple):
    photo: Photo
    data: bytes
    answer: "Future[Part]"


class Line:
    """A model at work, and what it has seen."""

    def __init__(
        self,
        model: ServedModel,
        journal: Journal | None = None,
        *,
        sizes: tuple[int, ...] = SIZES,
        waiting: int = WAITING,
        seen: Callable[[Sequence[Part], Watch], None] = lambda parts, watch: None,
    ) -> None:
        """Compiles and works in a thread of its own, until `close`.

        Args:
          model: that decides.
          journal: which gets each part before it is answered.
          sizes: of batches, ascending.
          waiting: as many photos at most are admitted at a time.
          seen: is told of each answered batch, in that thread.
        """
        self.model, self.ready, self.recent = model, threading.Event(), deque[Part](maxlen=RECENT)
        self.watch = journal.watch if journal else start_watch(model.threshold)
        self._journal, self._sizes, self._most, self._seen = journal, sizes, waiting, seen
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._admitted, self._lock = 0, threading.Lock()
        self.thread = threading.Thread(target=self._work, name="line", daemon=True)
        self.thread.start()

    @property
    def admitted(self) -> int:
        """How many photos are waiting for their answer."""
        return self._admitted

    @contextmanager
    def admission(self, count: int) -> Iterator[None]:
        """A place for `count` photos, as long as they are worked on; raises `FullError`."""
        with self._lock:
            if self._admitted + count > self._most:
                raise FullError
            self._admitted += count
        try:
            yield
        finally:
            with self._lock:
                self._admitted -= count

    def put(self, photo: Photo, data: bytes) -> "Future[Part]":
        """Lets a photo wait; its answer comes when the journal has it.

        The answer raises OSError where the journal cannot be written.
        """
        answer: Future[Part] = Future()
        self._waiting.put(_Waiting(photo, data, answer))
        return answer

    def close(self) -> None:
        """Answers what is waiting, and ends."""
        self._waiting.put(None)
        self.thread.join()
        if self._journal:
            self._journal.close()

    def _work(self) -> None:
        compile_sizes(self.model, self._sizes)
        self.ready.set()
        going_on = True
        while going_on:
            batch, going_on = self._next()
            try:
                parts = self._decide(batch) if batch else []
            except Exception as error:  # a full disk, a device: nobody may wait for ever
                logging.error("%d photos were not answered: %r", len(batch), error)
                for one in batch:
                    one.answer.set_exception(error)
            else:
                for one, part in zip(batch, parts, strict=True):
                    one.answer.set_result(part)

    def _next(self) -> tuple[list[_Waiting], bool]:
        """What is scored together, and whether more is to come."""
        first = self._waiting.get()
        if first is None:
            return [], False
        batch, end = [first], time.monotonic() + _PAUSE
        while len(batch) < self._sizes[-1]:
            try:
                one = self._waiting.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            if one is None:
                return batch, False
            batch.append(one)
        return batch, True

    def _decide(self, batch: Sequence[_Waiting]) -> list[Part]:
        readable = sum(one.photo.pixels is not None for one in batch)
        size = next(size for size in self._sizes if size >= max(readable, 1))
        photos = [one.photo for one in batch]
        made = decide_on(self.model.scorer, photos, self.model.threshold, size)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        watch, parts = self.watch, []
        for one, prediction in zip(batch, made, strict=True):
            row = row_of(prediction, "")
            del row["pictures"]
            row = {"part": watch.parts + 1, "time": now, **row}
            row["sha256"] = hashlib.sha256(one.data).hexdigest()
            watch = watch_row(watch, row)
            parts.append(Part(row, one.photo, _as_shown(one.photo, prediction)))
        if self._journal:
            pairs = zip(parts, batch, strict=True)
            self._journal.append([Entry(part.row, one.data) for part, one in pairs], watch)
        self.watch = watch
        self.recent.extend(parts)
        self._seen(parts, watch)
        return parts


def _as_shown(photo: Photo, prediction: Prediction) -> Prediction:
    """With the marked pixels of a picture that is small enough to be kept."""
    if prediction.marked is None or photo.shown is None:
        return prediction
    height, width = photo.shown.shape[:2]
    small = Image.fromarray(prediction.marked.astype(np.uint8))
    small = small.resize((width, height), Image.Resampling.NEAREST)
    return prediction._replace(marked=np.asarray(small) > 0)
