"""The service over HTTP: photos to decisions, what is seen of the line, and the page for people.

Nothing is asked of another machine, neither by the service nor by its pages.
"""

import asyncio
import base64
import io
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from data.photos import photo_of_bytes
from deploy.line import FullError, Line, Part
from deploy.prediction import DECISIONS, REGION, UNREADABLE
from engine import VERSION
from evaluation.drift import Watch, drift_of
from evaluation.maps import resize_map
from evaluation.threshold import statement
from report import heat
from report.page import render_page

PICTURES_ASKED = ("photo", "overlay", "heat", "mask")
_FILES = 64  # images in a form, at most
_THREADS = 2  # that decode and draw
_THUMBNAIL = 96  # pixels
_NAME = 200  # letters of a file name that are kept
_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"images": {"type": "array", "items": _IMAGE["schema"]}},
    }
}
_BODY = {"requestBody": {"content": {"image/*": _IMAGE, "multipart/form-data": _FORM}}}


class Gauges:
    """What /metrics shows, in a registry of its own."""

    def __init__(self, waiting: Any) -> None:
        """`waiting`: a function that says how many photos are."""
        self.registry = here = CollectorRegistry()
        self.photos = Counter("jaxomaly_photos", "Photos answered.", ["decision"], registry=here)
        self.refused = Counter("jaxomaly_refused", "Requests not admitted.", registry=here)
        self.seconds = Histogram(
            "jaxomaly_answer_seconds",
            "From a whole request to its answer.",
            buckets=_BUCKETS,
            registry=here,
        )
        self.batches = Histogram(
            "jaxomaly_batch_photos",
            "Photos scored together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=here,
        )
        self.evidence = Gauge(
            "jaxomaly_drift_evidence",
            "Against the promise; alarm at 100.",
            ["of"],
            registry=here,
        )
        admitted = Gauge("jaxomaly_waiting_photos", "Photos admitted.", registry=here)
        admitted.set_function(waiting)
        for decision in DECISIONS:
            self.photos.labels(decision)

    def batch(self, parts: Sequence[Part]) -> None:
        """Counts a batch."""
        self.batches.observe(len(parts))
        for part in parts:
            self.photos.labels(part.row["decision"]).inc()


def application(line: Line, gauges: Gauges) -> FastAPI:
    """The routes of a line, which is closed when the service ends.

    Args:
      line: at work.
      gauges: that the line tells of its batches.
    """
    pool = ThreadPoolExecutor(_THREADS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        yield
        await asyncio.to_thread(line.close)
        pool.shutdown()

    app = FastAPI(
        title="Jaxomaly",
        version=VERSION,
        description="Decides on photos of parts.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    threshold, model = line.model.threshold, line.model
    evidence = {"light": "green", "evidence": {}, "sentences": []}
    drift: dict[str, Any] = {"parts": -1, "said": evidence}

    def in_pool(function: Any, *arguments: Any) -> Any:
        return asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    def drift_now() -> dict[str, Any]:
        watch = line.watch
        if drift["parts"] != watch.parts:
            drift.update(parts=watch.parts, said=drift_content(watch, threshold))
        return drift["said"]

    async def answered(data: bytes, name: str) -> Part:
        photo = await in_pool(photo_of_bytes, data, name, model.image_size, model.reading)
        return await asyncio.wrap_future(line.put(photo, data))

    @app.post("/score", openapi_extra=_BODY, summary="Decide on one photo, or on several")
    async def score(request: Request, maps: str = "", name: str = "") -> JSONResponse:
        """One image as the body, or several as files of a form.

        `maps`: which pictures to return as data URIs: photo, overlay, heat, mask, with commas.
        `name`: of the image in the body, for the journal.
        """
        wanted = pictures_asked(maps)
        images, several = await images_of_request(request, name)
        start = time.perf_counter()
        if not line.ready.is_set():
            raise HTTPException(503, "the model is being compiled", {"Retry-After": "5"})
        try:
            with line.admission(len(images)):
                parts = await asyncio.gather(*(answered(*one) for one in images))
                rows = await asyncio.gather(
                    *(in_pool(content_of, part, wanted, threshold.map_max) for part in parts)
                )
        except FullError as full:
            gauges.refused.inc()
            reason = f"{line.admitted} photos are waiting already: come again"
            raise HTTPException(503, reason, {"Retry-After": "1"}) from full
        except OSError as error:
            reason = f"the journal cannot be written ({error.strerror}): free space"
            raise HTTPException(503, reason, {"Retry-After": "30"}) from error
        gauges.seconds.observe(time.perf_counter() - start)
        bad = all(row["decision"] == UNREADABLE for row in rows)
        content = {"parts": rows} if several else rows[0]
        return JSONResponse(
            {**content, "detail": rows[0]["reason"]} if bad else content, 422 if bad else 200
        )

    @app.get("/health", summary="Whether the service is alive")
    async def health() -> JSONResponse:
        alive = line.thread.is_alive()
        return JSONResponse({"alive": alive, "version": VERSION}, 200 if alive else 500)

    @app.get("/ready", summary="Whether photos are answered: everything is compiled")
    async def ready() -> JSONResponse:
        there = line.ready.is_set()
        return JSONResponse({"ready": there}, 200 if there else 503)

    @app.get("/metrics", summary="Counts, times and evidence, as Prometheus reads them")
    async def metrics() -> Response:
        for name, value in drift_now()["evidence"].items():
            gauges.evidence.labels(name).set(value)
        return Response(generate_latest(gauges.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model", summary="The model: card, promise, SHA-256 of its files")
    async def about() -> dict[str, Any]:
        return {
            "name": model.name,
            "card": model.card,
            "threshold": threshold.threshold,
            "statement": statement(threshold),
            "calibrated": threshold.date or None,
            "calibration_images": len(threshold.calibration_scores),
            "image_size": model.image_size,
            "digests": dict(model.digests),
        }

    @app.get("/recent", summary="The last fifty parts, and what the watch says")
    async def recent(after: int = 0) -> dict[str, Any]:
        """`after`: the number of a part; those up to it are left out."""
        new = [part for part in list(line.recent) if part.row["part"] > after]
        rows = await asyncio.gather(*(in_pool(thumbnail_of, part) for part in new))
        return {"parts": rows, "drift": drift_now()}

    @app.get("/recent/{part}", summary="One of the last fifty parts")
    async def one(part: int, maps: str = "") -> dict[str, Any]:
        wanted = pictures_asked(maps)
        for each in list(line.recent):
            if each.row["part"] == part:
                return await in_pool(content_of, each, wanted, threshold.map_max)
        raise HTTPException(404, f"part {part} is not among the last {line.recent.maxlen}")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        promise = " ".join(statement(threshold)[:2])
        return HTMLResponse(render_page("service.html", name=model.name, promise=promise))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_page("routes.html", routes=routes_of(app.openapi())))

    return app


def pictures_asked(maps: str) -> list[str]:
    """The names in `maps`; HTTPException 400 for another one."""
    names = [name for name in maps.split(",") if name]
    if unknown := [name for name in names if name not in PICTURES_ASKED]:
        known = ", ".join(PICTURES_ASKED)
        raise HTTPException(400, f"maps={unknown[0][:40]!r} is none of {known}")
    return names


async def images_of_request(request: Request, name: str) -> tuple[list[tuple[bytes, str]], bool]:
    """The files of a request with their names, and whether it is a form.

    Raises:
      HTTPException: 400 without an image or for a broken form, 415 for what is no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=_FILES, max_fields=_FILES) as form:
                files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
                images = [(await file.read(), (file.filename or "")[:_NAME]) for file in files]
            if not images:
                raise HTTPException(400, "the form holds no file: send images as files")
            return images, True
        if kind and not kind.startswith("image/") and kind != "application/octet-stream":
            reason = f"{kind[:60]} is no image: send image/*, or a form of files"
            raise HTTPException(415, reason)
        data = await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400, "the client has gone") from error
    if not data:
        raise HTTPException(400, "no image: send one as the body, or a form of files")
    return [(data, name[:_NAME])], False


def content_of(part: Part, wanted: Sequence[str], map_max: float) -> dict[str, Any]:
    """What is answered of a part, as JSON has it."""
    row = dict(part.row)
    box = {name.removeprefix("region_"): row.pop(name) for name in REGION}
    log10_nfa = row["region_log10_nfa"]
    content = {
        **row,
        "region": None if box["area"] is None else box,
        # How many regions so unusual a good image has by chance.
        "expected_false_marks": None if log10_nfa is None else 10.0**log10_nfa,
        "height": part.photo.size[0],
        "width": part.photo.size[1],
    }
    if wanted and part.photo.shown is not None:
        content["pictures"] = pictures_of(part, wanted, map_max)
    return content


def pictures_of(part: Part, wanted: Sequence[str], map_max: float) -> dict[str, str]:
    """Data URIs by name, each as large as the photo is shown."""
    shown = np.asarray(part.photo.shown)
    pictures = {}
    for name in wanted:
        if name == "photo":
            pictures[name] = _data_uri(shown, "JPEG")
            continue
        if name == "mask":
            pictures[name] = _data_uri(np.asarray(part.prediction.marked))
            continue
        if part.prediction.map is None:
            continue
        large = resize_map(part.prediction.map, shown.shape[:2])
        if name == "heat":
            drawn = heat.coloured(large, map_max)
        else:
            drawn = heat.overlay(shown, large, map_max, part.prediction.marked)
        pictures[name] = _data_uri(drawn)
    return pictures


def thumbnail_of(part: Part) -> dict[str, Any]:
    """What the strip shows of a part."""
    row = {n: part.row[n] for n in ("part", "time", "path", "decision", "score", "p_value")}
    if part.photo.shown is None:
        return {**row, "reason": part.row["reason"], "thumbnail": None}
    small = Image.fromarray(part.photo.shown)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return {**row, "thumbnail": _data_uri(np.asarray(small), "JPEG")}


def _data_uri(pixels: np.ndarray, kind: str = "PNG") -> str:
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "PNG" else {"quality": 85}
    Image.fromarray(pixels).save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def drift_content(watch: Watch, threshold: Any) -> dict[str, Any]:
    """What the watch says, as JSON has it."""
    return {"parts": watch.parts, **drift_of(watch, threshold)._asdict()}


def routes_of(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each route of an OpenAPI schema."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "about": operation.get("description", ""),
            "parameters": [each["name"] for each in operation.get("parameters", [])],
        }
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
