"""The application: routes of the studio behind their guards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from higan.errors import HiganError
from higan.hierarchy import groups
from higan.report.words import readable
from higan.store import Run
from higan.studio.desk import Desk, Kept
from higan.studio.encoding import Encoded
from higan.studio.facts import about
from higan.studio.jobs import Jobs
from higan.studio.lines import BusyError, FairLine, SupersededError, TooManyError
from higan.studio.looks import Look, parse_concept, parse_look, parse_seed
from higan.studio.tasks import MOST_BYTES, DownloadKind, Inverter, StripKind, download, response, strip, transition
from higan.types import Generator, Scorer, Segmenter
from higan.web.assets import load_assets
from higan.web.guards import Guard, check_access
from higan.workbench import open_workbench

__all__ = ["create_app"]

_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SEED = re.compile(r"[0-9]{1,20}")
_MOST_PIXELS_WIDE = 1024
_THUMBNAIL = 128
_UPLOADS_AT_ONCE = 4
_MOST_SAMPLES = 96
_RUN_FILES = {
    "report.html": "text/html; charset=utf-8",
    "manifest.json": "application/json",
    "boundaries.safetensors": "application/octet-stream",
    "rescoring.safetensors": "application/octet-stream",
}
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""A report carries its style within itself; it is shown as a document that may run nothing and reach nothing."""

_Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    run: Run,
    generator: Generator,
    scorer: Scorer | None = None,
    *,
    segmenter: Segmenter | None = None,
    host: str = "127.0.0.1",
    names: tuple[str, ...] = (),
    token: str | None = None,
    inversion_steps: int = 400,
) -> FastAPI:
    """The studio of a run, behind `higan.web.guards.Guard`.

    Args:
        run: with boundaries and re-scoring; its population is not needed.
        generator: the run's own.
        scorer: the run's own, for measured changes and transitions.
        segmenter: for overlays and transitions.
        host: the address that will be listened on.
        names: further host names to answer for.
        token: needed where other machines can reach the address.
        inversion_steps: of optimisation for every photograph.

    Raises:
        RunError: a step of the study is missing.
        ValueError: the run was made with a generator of another shape, no steps, a token is needed, or a name is no
            host's.
    """
    check_access(host, token, names)
    if inversion_steps < 1:
        raise ValueError(f"inversion_steps must be at least 1; got {inversion_steps}")
    studio = _Studio(run, Desk(open_workbench(run, generator, scorer), segmenter), inversion_steps)
    app = FastAPI(title="higan studio", openapi_url=None, lifespan=studio.lifespan)
    for path, method, handler in studio.routes():
        checked = _of(studio.version, handler) if path.startswith("/api/") else handler
        app.router.add_route(path, _told(checked), methods=[method])
    app.add_middleware(
        Guard,
        host=host,
        names=names,
        token=token,
        larger={"/api/photographs": MOST_BYTES},
    )
    return app


class _Studio:
    """Everything that the routes share."""

    def __init__(self, run: Run, desk: Desk, inversion_steps: int) -> None:
        self.run = run
        self.desk = desk
        self.assets = load_assets("higan.studio.page")
        facts = about(desk.bench)
        self.sliders = {concept["name"]: concept for concept in facts["concepts"]}
        told = facts | self._more(self.sliders)
        self.version = hashlib.sha256(json.dumps(told, allow_nan=False).encode()).hexdigest()[:16]
        self.facts = json.dumps(told | {"version": self.version}, allow_nan=False).encode()
        self.responses: Kept[str, dict[str, list[float]]] = Kept(1024)
        self.thumbnails: Kept[tuple[int, int], Encoded] = Kept(512)
        self.inverter = Inverter(desk, inversion_steps)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Threads and lines, as long as the application is up."""
        self.pictures: FairLine[tuple[Look, int | None], Encoded] = FairLine(
            self.desk.encoded, at_once=self.desk.at_once, name="pictures"
        )
        self.errands: FairLine[Callable[[], Any], Any] = FairLine(
            lambda tasks: [task() for task in tasks], per_client=4, total=64, name="errands"
        )
        # 24 samples along a slider, which nobody asked for: what somebody waits for does not stand behind that.
        self.curves: FairLine[Callable[[], Any], Any] = FairLine(
            lambda tasks: [task() for task in tasks], per_client=4, total=64, name="responses"
        )
        self.jobs = Jobs()
        self.uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        self.pictures.start()
        self.errands.start()
        self.curves.start()
        try:
            yield
        finally:
            await self.pictures.stop()
            await self.errands.stop()
            await self.curves.stop()
            self.jobs.stop()

    def routes(self) -> list[tuple[str, str, _Handler]]:
        """Path, method, handler."""
        return [
            ("/", "GET", self.index),
            ("/page/{name}", "GET", self.asset),
            ("/api/study", "GET", self.study),
            ("/api/run/{name}", "GET", self.run_file),
            ("/api/samples/{seed}", "GET", self.thumbnail),
            ("/api/picture", "POST", self.picture),
            ("/api/masks", "POST", self.masks),
            ("/api/changes", "POST", self.changes),
            ("/api/response", "POST", self.response),
            ("/api/strip", "POST", self.strip),
            ("/api/download", "POST", self.download),
            ("/api/transition", "POST", self.transition),
            ("/api/photographs", "POST", self.photograph),
            ("/api/jobs/{name}", "GET", self.job),
            ("/api/jobs/{name}", "DELETE", self.cancel),
        ]

    # --- the page -----------------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        return self._asset(request, "index.html")

    async def asset(self, request: Request) -> Response:
        return self._asset(request, request.path_params["name"])

    def _asset(self, request: Request, name: str) -> Response:
        found = self.assets.get(name)
        if found is None:
            return _error(404, "there is no such page")
        headers = {"etag": found.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)

    async def study(self, _: Request) -> Response:
        return Response(self.facts, media_type="application/json")

    async def run_file(self, request: Request) -> Response:
        """Files that a run is known to have, by name, and only where they lie in the run's own folder."""
        name = request.path_params["name"]
        path = self._run_file(name)
        if path is None:
            return _error(404, "the run has no such file")
        policy = {"content-security-policy": _REPORT_POLICY} if name.endswith(".html") else {}
        return Response(path.read_bytes(), media_type=_RUN_FILES[name], headers=policy)

    def _run_file(self, name: str) -> Path | None:
        folder = self.run.path.resolve()
        path = folder / name
        known = name in _RUN_FILES and path.is_file() and path.resolve().parent == folder
        return path if known else None

    def _more(self, verified: Collection[str]) -> dict[str, Any]:
        """What the page must know beside the study's facts."""
        bench, segmenter = self.desk.bench, self.desk.segmenter
        known = {c.name for c in bench.scorer.concepts} if bench.scorer is not None else set()
        objects = [n for n, b in bench.boundaries.items() if b.concept.level == "object" and n in known]
        objects.sort(key=lambda name: name not in verified)
        classes = segmenter.classes if segmenter is not None else ()
        return {
            "scored": bench.scorer is not None,
            "categories": [{"name": n, "label": readable(n), "verified": n in verified} for n in objects]
            if segmenter is not None
            else [],
            "classes": {c.name: {"label": readable(c.name), "colour": list(c.colour), "kind": c.kind} for c in classes},
            "palette": list(list(groups(bench.generator.num_layers).values())[-1]),
            "report": self._run_file("report.html") is not None,
            "largest_upload": MOST_BYTES,
        }

    # --- pictures -----------------------------------------------------------------------------------------------------

    async def thumbnail(self, request: Request) -> Response:
        text = request.path_params["seed"]
        # int() refuses thousands of digits with an error of its own.
        key = parse_seed(int(text) if _SEED.fullmatch(text) else text), _THUMBNAIL
        found = self.thumbnails.get(key)
        if found is None:
            found = await self.pictures.ask(_client(request), (Look(seed=key[0]), key[1]))
            self.thumbnails.put(key, found)
        # The address holds the digest of the study: what it shows never changes.
        return _picture(found, {"cache-control": "private, max-age=86400"})

    async def picture(self, request: Request) -> Response:
        look, values = await self._asked(request)
        largest = values.get("largest")
        if largest is not None and (not isinstance(largest, int) or not 16 <= largest <= _MOST_PIXELS_WIDE):
            raise ValueError(f"the largest width is a whole number of 16 to {_MOST_PIXELS_WIDE}")
        drag = values.get("drag") is True
        return _picture(await self.pictures.ask(_client(request), (look, largest), newest=drag), {})

    async def masks(self, request: Request) -> Response:
        look, _ = await self._asked(request)
        encoded, shares = await self.errands.ask(_client(request), partial(self.desk.masks, look))
        return _picture(encoded, {"x-classes": json.dumps(shares)})

    async def changes(self, request: Request) -> Response:
        look, _ = await self._asked(request)
        return JSONResponse(await self.errands.ask(_client(request), partial(self.desk.changes, look)))

    async def response(self, request: Request) -> Response:
        concept = parse_concept((await _json(request)).get("concept"), self.sliders)
        found = self.responses.get(concept)
        if found is None:
            slider = self.sliders[concept]
            work = partial(response, self.desk, concept, slider["layers"], slider["limit"])
            found = await self.curves.ask(_client(request), work)
            self.responses.put(concept, found)
        return JSONResponse(found)

    # --- what takes longer --------------------------------------------------------------------------------------------

    async def strip(self, request: Request) -> Response:
        look, values = await self._asked(request)
        kind, concept = _one_of(values.get("kind"), get_args(StripKind)), values.get("concept")
        if concept is not None:
            concept = parse_concept(concept, self.desk.bench.boundaries)
        return JSONResponse(await self.errands.ask(_client(request), partial(strip, self.desk, look, kind, concept)))

    async def download(self, request: Request) -> Response:
        look, values = await self._asked(request)
        kind = _one_of(values.get("kind"), get_args(DownloadKind))
        content, media_type, name = await self.errands.ask(_client(request), partial(download, self.desk, look, kind))
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        return Response(
            content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{plain}"'}
        )

    async def transition(self, request: Request) -> Response:
        values = await _json(request)
        categories, num = values.get("categories"), values.get("num", 24)
        if not isinstance(categories, list) or not 2 <= len(categories) <= 4:
            raise ValueError("a transition needs two to four known concepts")
        categories = [parse_concept(name, self.desk.bench.boundaries) for name in categories]
        if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= _MOST_SAMPLES:
            raise ValueError(f"a transition takes 1 to {_MOST_SAMPLES} samples")
        job = self.jobs.submit(_client(request), partial(transition, self.desk, categories, num))
        return JSONResponse(job.told(), 202)

    async def photograph(self, request: Request) -> Response:
        if self.uploads.locked():
            raise BusyError
        async with self.uploads:
            content = await request.body()
        if not content:
            raise ValueError("the body must be a PNG, JPEG or WebP picture; got nothing")
        job = self.jobs.submit(_client(request), partial(self.inverter, content))
        return JSONResponse(job.told(), 202)

    async def job(self, request: Request) -> Response:
        job = self.jobs.find(request.path_params["name"])
        return (
            _error(404, "there is no such job, or it has been forgotten") if job is None else JSONResponse(job.told())
        )

    async def cancel(self, request: Request) -> Response:
        self.jobs.cancel(request.path_params["name"])
        return Response(status_code=204)

    async def _asked(self, request: Request) -> tuple[Look, dict[str, Any]]:
        values = await _json(request)
        bench = self.desk.bench
        return parse_look(values.get("look"), bench.boundaries, bench.generator.num_layers), values


def _of(version: str, handler: _Handler) -> _Handler:
    """A handler that refuses a page which was opened for another study: its words would stand under other pictures."""

    async def answer(request: Request) -> Response:
        meant = request.headers.get("x-study") or request.query_params.get("v") or version
        if meant != version:
            return _error(409, "another study is served here since this page was opened: load the page again")
        return await handler(request)

    return answer


def _told(handler: _Handler) -> _Handler:
    """A handler whose errors become answers that say what to do."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except SupersededError:
            return Response(status_code=204)
        except TooManyError:
            return _error(429, "you wait for several things already", {"retry-after": "1"})
        except BusyError:
            return _error(503, "many people are waiting; try again in a moment", {"retry-after": "2"})
        except ValueError as error:
            return _error(400, str(error))
        except HiganError as error:
            return _error(500, str(error))

    return answer


async def _json(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON, neither nested deeply nor with thousands of digits in a row") from None
    if not isinstance(values, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - of what was sent
    return values


def _client(request: Request) -> str:
    """Whose line to stand in: what the page calls itself, else the address it comes from."""
    name = request.headers.get("x-client") or request.query_params.get("client") or ""
    if _CLIENT.fullmatch(name):
        return name
    return "" if request.client is None else request.client.host


def _one_of(value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ValueError(f"kind must be one of {', '.join(known)}")
    return value


def _picture(encoded: Encoded, headers: dict[str, str]) -> Response:
    content, media_type = encoded
    return Response(content, media_type=media_type, headers=headers)


def _error(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
