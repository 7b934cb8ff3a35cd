"""Serves a study to many raters at a time.

::

    GET  /                       the page of the raters
    GET  /progress               the page of the organiser; its data need the organiser's key
    POST /api/join               {nickname} → the token of a personal link
    GET  /api/trials             the trials a rater has not answered, in order, by opaque names; the personal link
    POST /api/answers            {trial, choice, seconds} → acknowledged once it is on the disk
    GET  /api/progress           who has got how far; no answers
    GET  /pictures/<name>.png    pictures of the study, and no other file

Raters show their token in the header ``x-rater``; a link carries it behind ``#``, where it reaches no log. What is
true about a trial never leaves the server. The guards of `higan.web` stand in front.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from higan.errors import UserStudyError
from higan.extras import optional
from higan.userstudy.answers import Answers, Rater
from higan.web.assets import load_assets
from higan.web.guards import App, Guard

__all__ = ["create_app"]

_LARGEST = 8 << 10
_PAGES = {"/": "study.html", "/progress": "progress.html"}
_KEEP = {"cache-control": "private, max-age=86400, immutable"}


class _RefusedError(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Desk:
    """What every address of the interface does: from a request's headers and body to what is sent back as JSON."""

    def __init__(self, answers: Answers, organiser: str, token: str | None) -> None:
        self.answers, self.study = answers, answers.study
        self._organiser, self._token = organiser, token

    def about(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        # Tells studies apart in a rater's browser; the identity itself stays here.
        study = hashlib.sha256(self.study.id.encode()).hexdigest()[:16]
        return {"study": study, "title": self.study.title, "total": self.study.design.num_trials}

    def join(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        nickname = body.get("nickname", "")
        if not isinstance(nickname, str):
            raise _RefusedError(400, "a nickname is text")
        rater, ticket = self.answers.join(nickname[:1000])
        return {"rater": ticket, "nickname": rater.nickname}

    def trials(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        rater = self._rater(headers)
        done = self.answers.of(rater)
        left = [t for t in self.study.block(rater.block) if t.id not in done]
        shown = [{"id": t.id, "before": t.before, "after": t.after} for t in left]
        link = self._link(headers.get("x-rater", ""))
        return {"nickname": rater.nickname, "total": self.study.design.num_trials, "trials": shown, "link": link}

    def answer(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        rater = self._rater(headers)
        trial, choice, seconds = body.get("trial"), body.get("choice"), body.get("seconds")
        if not (isinstance(trial, str) and isinstance(choice, str)):
            raise _RefusedError(400, "an answer names its trial and a choice")
        plain = isinstance(seconds, int | float) and not isinstance(seconds, bool) and abs(seconds) < 1e6
        stored = self.answers.record(rater, trial, choice, float(seconds) if plain and seconds is not None else None)
        return {"trial": trial, "choice": stored}

    def progress(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        if not hmac.compare_digest(headers.get("x-organiser", "").encode(), self._organiser.encode()):
            raise _RefusedError(403, "open the organiser's address, which the server printed when it started")
        raters = [rater for rater in self.answers.raters() if rater.origin != "simulated"]
        rows = [{"number": r.number + 1, "nickname": r.nickname, "answered": r.answered} for r in raters]
        return {"title": self.study.title, "total": self.study.design.num_trials, "raters": rows}

    def _link(self, ticket: str) -> str:
        """The way back for a rater, from other devices as well: there the address in the browser lacks the token."""
        access = "" if self._token is None else f"?token={quote(self._token)}"
        return f"/{access}#rater={quote(ticket)}"

    def _rater(self, headers: Mapping[str, str]) -> Rater:
        rater = self.answers.find(headers.get("x-rater", ""))
        if rater is None:
            raise _RefusedError(404, "this personal link is not known here; start anew from the invitation")
        return rater


def create_app(
    answers: Answers,
    *,
    organiser: str,
    host: str = "127.0.0.1",
    names: tuple[str, ...] = (),
    token: str | None = None,
) -> App:
    """The application, behind its guards.

    Args:
        answers: of the study to serve.
        organiser: key to the progress of all raters.
        host: the address that will be listened on.
        names: further host names that requests may ask for.
        token: asked for where it is given; needed if other machines can reach the address.

    Raises:
        ValueError: the address can be reached from other machines and there is no token, or the token is short.
        MissingExtraError: starlette is not installed.
    """
    applications = optional("starlette.applications", "studio")
    routing = optional("starlette.routing", "studio")
    responses = optional("starlette.responses", "studio")
    threads = optional("starlette.concurrency", "studio")
    study, desk = answers.study, _Desk(answers, organiser, token)
    assets = load_assets("higan.userstudy.pages")
    pictures = {f"{name}.png" for trial in study.design.trials.values() for name in (trial.before, trial.after)}

    def call(work: Callable[[Mapping[str, str], Mapping[str, Any]], Any]) -> Callable[[Any], Any]:
        async def endpoint(request: Any) -> Any:
            try:
                body = _body(await request.body()) if request.method == "POST" else {}
                return responses.JSONResponse(await threads.run_in_threadpool(work, request.headers, body))
            except _RefusedError as refused:
                return responses.JSONResponse({"error": str(refused)}, refused.status)
            except ValueError as error:
                return responses.JSONResponse({"error": str(error)}, 400)
            except UserStudyError as error:
                return responses.JSONResponse({"error": str(error)}, 403)

        return endpoint

    async def page(request: Any) -> Any:
        path = request.url.path
        asset = assets.get(_PAGES.get(path, path[1:]))
        if asset is None or (path not in _PAGES and path.endswith(".html")):
            return responses.PlainTextResponse("there is nothing here", 404)
        return responses.Response(asset.content, media_type=asset.media_type, headers={"cache-control": "no-cache"})

    async def picture(request: Any) -> Any:
        name = request.path_params["name"]
        # A name becomes a path only where the study lists it.
        if name not in pictures:
            return responses.PlainTextResponse("there is no such picture", 404)
        content = await threads.run_in_threadpool((study.pictures / name).read_bytes)
        return responses.Response(content, media_type="image/png", headers=_KEEP)

    routes = [
        routing.Route("/api/about", call(desk.about)),
        routing.Route("/api/join", call(desk.join), methods=["POST"]),
        routing.Route("/api/trials", call(desk.trials)),
        routing.Route("/api/answers", call(desk.answer), methods=["POST"]),
        routing.Route("/api/progress", call(desk.progress)),
        routing.Route("/pictures/{name}", picture),
        routing.Route("/{rest:path}", page),
    ]
    return Guard(applications.Starlette(routes=routes), host=host, names=names, token=token, largest=_LARGEST)


def _body(data: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "the body must be JSON") from None
    if not isinstance(body, dict):
        raise _RefusedError(400, "the body must be a JSON object")
    return body
