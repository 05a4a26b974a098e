"""The pages: what an annotator and the study's owner see, and who may see what.

Starlette with pages made on the server, because Gradio serves pictures by paths that tell what they are, reports usage to
its makers unless told not to, and builds pages that neither keyboard nor screen reader can rely on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attacker_metrics.annotation import export, overview, pictures
from attacker_metrics.annotation.database import Annotator, DatabaseFileError, NotWritableError, Trial
from attacker_metrics.annotation.store import DIFFERENT, SAME, RefusedError, Store, new_token
from attacker_metrics.evaluation.images import ImageError

LETTERS = "1234567890qwertasdfg"
"""Keys of the candidates, in their order; u, p and x are taken."""

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
        hosts: names under which it answers; ``"*"`` for any.
        open_to_all: whether anybody may enter a name and begin, or only who has a personal link.
    """
    pages = _Pages(store, folder, owner_token, open_to_all=open_to_all)
    return Starlette(
        routes=[
            Route("/", pages.start),
            Route("/begin", pages.begin, methods=["POST"]),
            Route("/a/{key}", pages.enter),
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
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(_SameOrigin),
        ],
        exception_handlers={
            RefusedError: pages.refused,
            DatabaseFileError: pages.refused,
            NotWritableError: pages.not_saved,
            ImageError: pages.unreadable,
        },
    )


class _Pages:
    def __init__(self, store: Store, folder: Path, owner_token: str, *, open_to_all: bool) -> None:
        self._store, self._folder, self._owner_token, self._open = store, folder, owner_token, open_to_all
        self._templates = Environment(loader=PackageLoader("attacker_metrics.annotation"), autoescape=True)
        self._cookie, self._owner_cookie = f"annotator_{store.name}", f"owner_{store.name}"

    def start(self, request: Request) -> Response:
        return self._page("start", name=self._name(request), open=self._open, token=new_token())

    async def begin(self, request: Request) -> Response:
        if not self._open:
            raise RefusedError("Please use the personal link that you were given.")
        form = await _form(request)
        annotator = await run_in_threadpool(self._store.register, form.get("name", ""), form.get("token"))
        return self._remembered(annotator)

    def enter(self, request: Request) -> Response:
        annotator = self._store.annotator(request.path_params["key"])
        if annotator is None:
            return self._page("error", 404, message="This link belongs to nobody; check that it is complete.")
        return self._remembered(annotator)

    def trial(self, request: Request) -> Response:
        annotator = self._annotator(request)
        if annotator is None:
            return _go("/")
        turn = self._store.show(annotator)
        if turn.trial is None:
            return self._page("done", turn=turn, name=annotator.name)
        choices = [
            {"value": str(k), "label": label.capitalize() if self._store.settings.task == "pair" else label, "key": key}
            for k, (label, key) in enumerate(zip(self._store.answers(turn.trial), self._keys(), strict=False))
        ]
        return self._page("trial", turn=turn, name=annotator.name, choices=choices, task=self._store.settings.task)

    async def vote(self, request: Request) -> Response:
        annotator = await run_in_threadpool(self._annotator, request)
        if annotator is None:
            return _go("/")
        form = await _form(request)
        visible = form.get("visible_ms", "")
        visible_ms = int(visible) if visible.isascii() and visible.isdecimal() and len(visible) < 12 else None
        await run_in_threadpool(self._vote, annotator, form.get("trial", ""), form.get("answer", ""), visible_ms)
        return _go("/trial")

    async def undo(self, request: Request) -> Response:
        annotator = await run_in_threadpool(self._annotator, request)
        if annotator is None:
            return _go("/")
        form = await _form(request)
        await run_in_threadpool(self._store.undo, annotator, form.get("trial", ""))
        return _go("/trial")

    def pause(self, request: Request) -> Response:
        annotator = self._annotator(request)
        if annotator is None:
            return _go("/")
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
        if token is not None and self._is_owner(token):
            answer = _go("/owner")  # the token must not stay in the address
            answer.set_cookie(self._owner_cookie, token, httponly=True, samesite="lax")
            return answer
        if token is not None or not self._is_owner(request.cookies.get(self._owner_cookie, "")):
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

    def not_saved(self, _: Request, error: Exception) -> Response:
        _LOGGER.error("%s", error)
        return self._page("error", 503, message="This could not be saved. Try again; if that does not help, tell the owner.")

    def unreadable(self, _: Request, error: Exception) -> Response:
        _LOGGER.error("%s", error)  # the owner may know the name of the file, the annotator must not
        return Response("The picture cannot be read; please tell the owner of the study.", 500)

    def _vote(self, annotator: Annotator, token: str, choice: str, visible_ms: int | None) -> None:
        trial = self._store.trial(annotator, token)
        answers = dict(zip(map(str, range(len(LETTERS))), self._store.answers(trial), strict=False))
        if choice not in answers and choice != "none":
            raise RefusedError("That is none of the answers.")
        self._store.vote(annotator, token, answers.get(choice), visible_ms)

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
        if not self._is_owner(request.cookies.get(self._owner_cookie, "")):
            return self._owner_only()
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content(self._store), media_type="text/csv", headers=headers)

    def _owner_only(self) -> Response:
        return self._page("error", 403, message="This page is for the owner of the study; open the address with the token.")

    def _is_owner(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._owner_token.encode())

    def _annotator(self, request: Request) -> Annotator | None:
        return self._store.annotator(request.cookies.get(self._cookie, ""))

    def _name(self, request: Request) -> str | None:
        annotator = self._annotator(request)
        return None if annotator is None else annotator.name

    def _remembered(self, annotator: Annotator) -> Response:
        answer = _go("/trial")
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


class _SameOrigin:
    """Refuses forms that another site sends; the cookies would not come with them either, being SameSite."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            headers = Request(scope).headers
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            if site is None:  # an old browser, or no HTTPS; otherwise a proxy may have changed the host's name
                is_other = origin is not None and urlsplit(origin).netloc != headers.get("host")
            else:
                is_other = site not in ("same-origin", "none")
            if is_other:
                await Response("Forms are taken from this site only.", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


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
