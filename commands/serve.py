"""From a trained workdir, or an exported folder, to a service on the line."""

import importlib.util
import json
import os
import socket

from commands import inputs
from commands.detector import restore_detector
from commands.runs import whole_path
from deploy.journal import KEEP, Journal
from deploy.line import Line
from deploy.served import ServedModel, model_digest, read_export
from engine import preemption, startup
from evaluation.results import RESULTS_FILE
from evaluation.threshold import THRESHOLD_FILE, statement
from report import summary
from storage.files import sha256
from storage.outputs import CONFIG_FILE, FACTS_FILE

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "multipart": "python-multipart"}
_NEEDED |= {"prometheus_client": "prometheus-client"}
_CONNECTIONS = 256  # at a time; a further one is answered 503
_HEADERS = 2**16  # bytes of a request's head
_GRACE = 20  # seconds in which what is in flight is answered after SIGTERM


def serve(
    workdir: str | os.PathLike[str] = "",
    model: str | os.PathLike[str] = "",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    journal: str | os.PathLike[str] = "",
    keep: str = "none",
) -> None:
    """Answers on `host` and `port` until SIGTERM or Ctrl-C, as deploy/service.py says.

    Args:
      workdir: of a finished run; or
      model: a folder that `export` wrote.
      host: the address to listen at; others than this machine reach only one that is named.
      port: 0: any that is free, which is printed.
      journal: folder that gets a line for each answered photo; none without.
      keep: which photos it keeps: 'defective', 'all' or 'none'.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """
    missing = [name for module, name in _NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ValueError(
            f"--mode=serve needs {', '.join(missing)}: pip install -r requirements-serve.txt"
        )
    if keep not in KEEP:
        raise ValueError(f"--keep={keep} is none of {', '.join(KEEP)}")
    if keep != "none" and not journal:
        raise ValueError(f"--keep={keep} keeps photos in the journal: name its folder, --journal")
    import uvicorn

    from deploy.limits import TimedHead, limited
    from deploy.service import Gauges, application

    startup.give_back_memory()
    served = read_export(whole_path(model)) if model else served_workdir(whole_path(workdir))
    listening = _listen(host, port)
    with listening:
        book = None
        if journal:
            threshold = served.threshold
            book = Journal(whole_path(journal), threshold, model_digest(served), keep)
        line: Line  # which the gauges ask, and which tells them
        gauges = Gauges(lambda: line.admitted)
        line = Line(served, book, seen=lambda parts, watch: gauges.batch(parts))
        config = uvicorn.Config(
            limited(application(line, gauges)),
            http=TimedHead,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADERS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE,
        )
        preemption.leave_to_server()
        for sentence in statement(served.threshold)[:2]:
            print(sentence)
        place = f"[{host}]" if ":" in host else host
        print(f"Serving {served.name} at http://{place}:{listening.getsockname()[1]}/", flush=True)
        uvicorn.Server(config).run(sockets=[listening])
    print(f"Stopped after part {line.watch.parts:,}.", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"cannot listen at --host={host} --port={port} ({reason}): name another --port, or an "
            "address of this machine"
        ) from error


def served_workdir(workdir: str) -> ServedModel:
    """The detector of a workdir, as the service needs it.

    Raises:
      ValueError, OSError: it is not trained to its end, damaged, or has no threshold.json.
    """
    detector = restore_detector(workdir)
    config = detector.config
    inputs.refuse_clips(config, "--mode=serve")
    card = f"# {config.name}: {config.data.category}\n"
    results = os.path.join(workdir, RESULTS_FILE)
    if os.path.exists(results):
        with open(results, encoding="utf-8") as file:
            card += "\n" + summary.summary(json.load(file)) + "\n"
    names = (THRESHOLD_FILE, CONFIG_FILE, FACTS_FILE)
    return ServedModel(
        name=f"{config.name}: {config.data.category}",
        scorer=detector.scorer(),
        threshold=detector.threshold,
        image_size=config.data.image_size,
        reading=inputs.reading_of(config, detector.facts),
        card=card,
        digests={name: sha256(os.path.join(workdir, name)) for name in names},
    )
