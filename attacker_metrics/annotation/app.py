"""The pages: what an annotator and the study's owner see, and who may see what.

Starlette with pages made on the server, because Gradio serves pictures by paths that tell what they are, reports usage to
its makers unless told not to, and builds pages that neither keyboard nor screen reader can rely on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attacker_metrics.annotation import export, overview, pictures
from attacker_metrics.annotation.database import (
    Annotator,
    DatabaseFileError,
    NotReadableError,
    NotWritableError,
    Trial,
)
from attacker_metrics.annotation.gate import Guesses, KnownHosts, SameOrigin, TooManyGuessesError
from attacker_metrics.annotation.store import DIFFERENT, SAME, RefusedError, Store, Turn, new_token
from attacker_metrics.files.images import ImageError

LETTERS = "1234567890qwertasdfg"
"""Keys of the candidates, in their order; u, p and x are taken."""

_CANNOT_TELL = "Cannot tell"
_STRANGER = {
    "no-cookie": "This browser has not kept the cookie by which the study knows you, so you cannot begin here. Allow cookies"
    " for this site, go back to the page before and send it again, or open your personal link again.",
    "unknown": "This browser does not know you: it has no cookie of this study, or no longer. If you have begun already,"
    " open your personal link; what you have answered is kept.",
    "lost": "Your last answer was not counted, because this browser does not know you: it has no cookie of this study, or no"
    " longer. Allow cookies for this site and open your personal link; what you had answered before is kept.",
}
"""Why an annotator is back at the start."""

_LOGGER = logging.getLogger(__name__)
_LONGEST_FORM = 8192
_COOKIE_SECONDS = 90 * 24 * 3600
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def create_app(
    store: Store, folder: Path, owner_token: str, *, hosts: tuple[str, ...] = ("*",), open_to_all: bool = True
) -> Starlette:
    """The web application.

    Args:
        store: the study.
        folder: of the manifest, that its paths are relative to.
        owner_token: opens the owner's page.
        hosts: names under which it answers; ``"*"`` for any, ``"address"`` for every IP address.
        open_to_all: whether anybody may enter a name and begin, or only who has a personal link.
    """
    pages = _Pages(store, folder, owner_token, open_to_all=open_to_all)
    return Starlette(
        routes=[
            Route("/", pages.start),
            Route("/begin", pages.begin, methods=["POST"]),
            Route("/a/{key}", pages.enter),
            Route("/a/{key}", pages.switch, methods=["POST"]),
            Route("/trial", pages.trial),
            Route("/vote", pages.vote, methods=["POST"]),
            Route("/undo", pages.undo, methods=["POST"]),
            Route("/pause", pages.pause),
            Route("/picture/{token}", pages.judged_picture),
            *([Route("/original/{token}", pages.original_picture)] if store.settings.task == "pair" else []),
            Route("/owner", pages.owner),
            Route("/owner/annotations.csv", pages.table),
            Route("/owner/answers.csv", pages.log),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(KnownHosts, hosts=hosts),
            Middleware(SameOrigin),
        ],
        exception_handlers={
            RefusedError: pages.refused,
            _NobodysLinkError: pages.nobodys,
            DatabaseFileError: pages.refused,
            NotWritableError: pages.not_saved,
            NotReadableError: pages.not_read,
            TooManyGuessesError: pages.too_many,
            ImageError: pages.unreadable,
        },
    )


class _Pages:
    def __init__(self, store: Store, folder: Path, owner_token: str, *, open_to_all: bool) -> None:
        self._store, self._folder, self._owner_token, self._open = store, folder, owner_token, open_to_all
        self._templates = Environment(loader=PackageLoader("attacker_metrics.annotation"), autoescape=True)
        self._cookie, self._owner_cookie = f"annotator_{store.name}", f"owner_{store.name}"
        self._owner_session = new_token()  # what the owner's cookie holds: nobody can try tokens by cookies
        self._guesses = Guesses()

    def start(self, request: Request) -> Response:
        annotator = self._annotator(request)
        name = None if annotator is None else annotator.name
        notice = _STRANGER.get(request.query_params.get("stranger", "")) if annotator is None else None
        return self._page("start", name=name, open=self._open, token=new_token(), notice=notice)

    async def begin(self, request: Request) -> Response:
        if not self._open:
            raise RefusedError("Please use the personal link that you were given.")
        form = await _form(request)
        annotator = await run_in_threadpool(self._store.register, form.get("name", ""), form.get("token"))
        return self._remembered(annotator)

    def enter(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-dest", "document") != "document":  # a picture or script of a page elsewhere
            raise RefusedError("A personal link is opened by itself, not from within a page.")
        annotator = self._by_key(request)
        present = self._annotator(request)
        if present is not None and present.id != annotator.id:  # another site may have led here
            return self._page("switch", name=annotator.name, present=present.name, key=annotator.key)
        return self._remembered(annotator)

    def switch(self, request: Request) -> Response:
        return self._remembered(self._by_key(request))

    def trial(self, request: Request) -> Response:
        annotator = self._annotator(request)
        if annotator is None:
            return _stranger("no-cookie" if "begun" in request.query_params else "unknown")
        if "begun" in request.query_params:
            return _go("/trial")
        turn = self._store.show(annotator)
        notice = self._notice(annotator, turn, request.query_params)
        if turn.trial is None:
            return self._page("done", turn=turn, name=annotator.name, notice=notice)
        choices = [
            {"value": value, "label": label, "key": key}
            for (value, label), key in zip(self._choices(turn.trial).items(), self._keys(), strict=False)
        ]
        return self._page(
            "trial", turn=turn, name=annotator.name, choices=choices, task=self._store.settings.task, notice=notice
        )

    async def vote(self, request: Request) -> Response:
        annotator = await run_in_threadpool(self._annotator, request)
        if annotator is None:
            return _stranger("lost")
        form = await _form(request)
        visible = form.get("visible_ms", "")
        visible_ms = int(visible) if visible.isascii() and visible.isdecimal() and len(visible) < 12 else None
        trial, answer = form.get("trial", ""), form.get("answer", "")
        is_counted = await run_in_threadpool(self._vote, annotator, trial, answer, visible_ms)
        return _go("/trial" if is_counted else f"/trial?{urlencode({'late': trial, 'answer': answer})}")

    async def undo(self, request: Request) -> Response:
        annotator = await run_in_threadpool(self._annotator, request)
        if annotator is None:
            return _stranger("unknown")
        form = await _form(request)
        trial = form.get("trial", "")
        is_undone = await run_in_threadpool(self._store.undo, annotator, trial)
        return _go("/trial" if is_undone else f"/trial?{urlencode({'kept': trial})}")

    def pause(self, request: Request) -> Response:
        annotator = self._annotator(request)
        if annotator is None:
            return _stranger("unknown")
        link = f"{request.base_url}a/{annotator.key}"
        return self._page("pause", turn=self._store.turn(annotator), name=annotator.name, link=link)

    def judged_picture(self, request: Request) -> Response:
        return self._picture(
            request,
            lambda trial: pictures.judged_png(self._folder, self._store.items, self._store.settings.task, trial),
        )

    def original_picture(self, request: Request) -> Response:
        return self._picture(request, lambda trial: pictures.original_png(self._folder, self._store.items, trial))

    def owner(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:
            if not self._is_token(request, token):
                return self._owner_only()
            answer = _go("/owner")  # the token must not stay in the address
            answer.set_cookie(self._owner_cookie, self._owner_session, httponly=True, samesite="lax")
            return answer
        if not self._is_owner(request):
            return self._owner_only()
        links = {annotator.name: f"{request.base_url}a/{annotator.key}" for annotator in self._store.annotators()}
        return self._page(
            "owner",
            overview=overview.overview(self._store),
            links=links,
            items=len(self._store.items),
            settings=self._store.settings,
        )

    def table(self, request: Request) -> Response:
        return self._download(request, "annotations.csv", export.table_csv)

    def log(self, request: Request) -> Response:
        return self._download(request, "answers.csv", export.log_csv)

    def refused(self, _: Request, error: Exception) -> Response:
        return self._page("error", 400, message=str(error))

    def nobodys(self, _: Request, error: Exception) -> Response:
        return self._page("error", 404, message=str(error))

    def not_saved(self, _: Request, error: Exception) -> Response:
        _LOGGER.error("%s", error)
        return self._page("error", 503, message="This could not be saved. Try again; if that does not help, tell the owner.")

    def not_read(self, _: Request, error: Exception) -> Response:
        _LOGGER.error("%s", error)  # it names a file, which is the owner's business
        return self._page("error", 503, message="The answers cannot be read at the moment. Try again, or tell the owner.")

    def too_many(self, _: Request, error: Exception) -> Response:
        answer = self._page("error", 429, message=str(error))
        answer.headers["Retry-After"] = str(error.seconds if isinstance(error, TooManyGuessesError) else 1)
        return answer

    def unreadable(self, _: Request, error: Exception) -> Response:
        _LOGGER.error("%s", error)  # the owner may know the name of the file, the annotator must not
        return Response("The picture cannot be read; please tell the owner of the study.", 500)

    def _vote(self, annotator: Annotator, token: str, choice: str, visible_ms: int | None) -> bool:
        trial = self._store.trial(annotator, token)
        answers = dict(zip(map(str, range(len(LETTERS))), self._store.answers(trial), strict=False))
        if choice not in answers and choice != "none":
            raise RefusedError("That is none of the answers.")
        return self._store.vote(annotator, token, answers.get(choice), visible_ms)

    def _choices(self, trial: Trial) -> dict[str, str]:
        """What a button sends -> what is on it."""
        is_pair = self._store.settings.task == "pair"
        return {str(k): label.capitalize() if is_pair else label for k, label in enumerate(self._store.answers(trial))}

    def _notice(self, annotator: Annotator, turn: Turn, query: Mapping[str, str]) -> str | None:
        """What became of an answer, or its undoing, that came from a page that was not the last one any more."""
        token = query.get("late", query.get("kept", ""))
        trial = self._store.own_trial(annotator, token) if token else None
        if trial is None:
            return None
        picture = f"picture {trial.position + 1}"
        counted = self._store.counted(trial)
        if "kept" in query:
            if counted is None:  # taken back already: the form was sent twice
                return None
            return f"The answer to {picture} was not taken back: only the last one can be, and only once. It counts."
        labels = self._choices(trial) | {"none": _CANNOT_TELL}
        given = labels.get(query.get("answer", ""))
        if given is None:
            return None
        if counted is None:
            if turn.trial is None or turn.trial.id == trial.id:
                return None
            return (
                f"Your answer \u201c{given}\u201d to {picture} was not counted, because picture {turn.answered + 1} comes"
                " before it: its answer was taken back, perhaps in another tab."
            )
        before = _CANNOT_TELL if counted.answer is None else _label_of(counted.answer, self._store.answers(trial), labels)
        if before == given:  # sent twice, nothing is lost
            return None
        return (
            f"Your answer \u201c{given}\u201d to {picture} was not counted, because \u201c{before}\u201d had been given"
            " before, perhaps in another tab, and counts."
        )

    def _keys(self) -> str:
        return SAME[0] + DIFFERENT[0] if self._store.settings.task == "pair" else LETTERS

    def _picture(self, request: Request, png: Callable[[Trial], bytes]) -> Response:
        """Only of the trial at which the annotator is."""
        annotator = self._annotator(request)
        trial = None if annotator is None else self._store.turn(annotator).trial
        if trial is None or not secrets.compare_digest(trial.token.encode(), request.path_params["token"].encode()):
            return Response(status_code=404)
        return Response(png(trial), media_type="image/png")

    def _download(self, request: Request, name: str, content: Callable[[Store], str]) -> Response:
        if not self._is_owner(request):
            return self._owner_only()
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content(self._store), media_type="text/csv", headers=headers)

    def _owner_only(self) -> Response:
        return self._page("error", 403, message="This page is for the owner of the study; open the address with the token.")

    def _is_owner(self, request: Request) -> bool:
        return secrets.compare_digest(request.cookies.get(self._owner_cookie, "").encode(), self._owner_session.encode())

    def _is_token(self, request: Request, token: str) -> bool:
        self._guesses.check(_address(request))
        if secrets.compare_digest(token.encode(), self._owner_token.encode()):
            return True
        self._guesses.was_wrong(_address(request))
        return False

    def _by_key(self, request: Request) -> Annotator:
        """Whose personal link it is."""
        self._guesses.check(_address(request))
        annotator = self._store.annotator(request.path_params["key"])
        if annotator is None:
            self._guesses.was_wrong(_address(request))
            raise _NobodysLinkError("This link belongs to nobody; check that it is complete.")
        return annotator

    def _annotator(self, request: Request) -> Annotator | None:
        return self._store.annotator(request.cookies.get(self._cookie, ""))

    def _remembered(self, annotator: Annotator) -> Response:
        answer = _go("/trial?begun=1")  # where it turns out whether the cookie was kept
        answer.set_cookie(self._cookie, annotator.key, max_age=_COOKIE_SECONDS, httponly=True, samesite="lax")
        return answer

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(f"{template}.html.jinja").render(**values), status_code=status)


class _Headers:
    """Sets the headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caching = "max-age=3600" if scope.get("path", "").startswith("/static/") else "no-store"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS | {"Cache-Control": caching})
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _NobodysLinkError(Exception):
    """A personal link that is none."""


async def _form(request: Request) -> dict[str, str]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LONGEST_FORM:
            raise RefusedError("The form is too long.")
    fields = parse_qs(content.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


def _go(path: str) -> RedirectResponse:
    """See other: the back button never sends a form again."""
    return RedirectResponse(path, status_code=303)


def _stranger(why: str) -> RedirectResponse:
    return _go(f"/?stranger={why}")


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _label_of(answer: str, answers: Sequence[str], labels: Mapping[str, str]) -> str:
    return labels[str(answers.index(answer))] if answer in answers else answer
