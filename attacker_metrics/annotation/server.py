"""A study and an address -> a running server."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from attacker_metrics.annotation.answers import read_answers
from attacker_metrics.annotation.app import create_app
from attacker_metrics.annotation.connections import BACKLOG, PatientProtocol
from attacker_metrics.annotation.database import Database
from attacker_metrics.annotation.gate import ANY_ADDRESS, LOCAL_HOSTS, check_host
from attacker_metrics.annotation.store import DEFAULT_CATCH, DEFAULT_REPEATS, Settings, Store, tidy_name
from attacker_metrics.annotation.tasks import TaskName, read_tasks

LOCAL = ("127.0.0.1", "localhost", "::1")
_LOCAL_NAMES = LOCAL_HOSTS
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - to recognise it # nosec B104
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{12,}")


def open_study(
    manifest: Path,
    database: Database,
    *,
    task: TaskName | None = None,
    seed: int | None = None,
    repeats: float | None = None,
    catch: float | None = None,
) -> Store:
    """The study of a new database, or the one that it holds if it is about the same tasks.

    Args:
        manifest: the rows to judge.
        database: where votes go.
        task: ``"category"`` (default) or ``"pair"``; None here and below: as the database has it, or the default.
        seed: of candidates and orders (default: 0).
        repeats: share of the items that are shown twice (default: 0.1).
        catch: share of catch trials (default: 0.1, in a pair task 0.5).

    Raises:
        TableError: if the manifest cannot be used.
        DatabaseFileError: if the database is about something else, naming what differs, or cannot be written.
        ValueError: if a setting is out of range.
    """
    store = None if database.is_new else Store(database)
    task = task or (store.settings.task if store else "category")
    known = store.settings if store else Settings(task, catch=DEFAULT_CATCH[task], repeats=DEFAULT_REPEATS)
    settings = Settings(
        task,
        known.seed if seed is None else seed,
        known.repeats if repeats is None else repeats,
        known.catch if catch is None else catch,
    )
    if store is not None:
        # The items of another task differ in everything; say that it is another task.
        store.check_unchanged(settings, store.items)
        store.check_unchanged(settings, read_tasks(manifest, task, seed=settings.seed))
        read_answers(store)  # what is damaged is told now, and not when somebody has voted
        with database.writing():
            pass  # now, and not when somebody has voted
        return store
    return Store.create(database, settings, read_tasks(manifest, task, seed=settings.seed))


def hosts_of(host: str, allowed: Sequence[str] = ()) -> tuple[str, ...]:
    """The names under which a server that listens on ``host`` answers.

    Its own and those of this machine; listening on every address, any IP address too and the machine's name, because only
    names can be pointed at somebody else's machine.

    Args:
        host: to listen on.
        allowed: more of them: names, ``*.example.org``, or ``*`` for any.

    Raises:
        ValueError: if one is no name.

    Example:
        >>> hosts_of("192.0.2.7", ["study.example"])
        ('127.0.0.1', 'localhost', '[::1]', '192.0.2.7', 'study.example')
    """
    if host in LOCAL:
        own: tuple[str, ...] = ()
    elif host in _EVERYWHERE:
        machine = socket.gethostname()
        own = (ANY_ADDRESS, *dict.fromkeys((machine, machine.split(".")[0], f"{machine.split('.')[0]}.local")))
    else:
        own = (host,)
    return (*LOCAL_HOSTS, *own, *map(check_host, allowed))


def serve(
    store: Store,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    owner_token: str | None = None,
    annotators: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the study until Ctrl-C or SIGTERM.

    Args:
        store: the study.
        folder: of the manifest.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        owner_token: opens the owner's page; by default a random one.
        annotators: names; if any, only they take part, each by a personal link.
        allowed_hosts: more names under which it answers, see :func:`hosts_of`; needed behind a server with another name.
        tell: is given the addresses, a line each.

    Connections that send no whole request for 15 seconds are closed, and of too many (more than 512, fewer where the process
    may not open as many files) the one that has been silent longest: see :mod:`attacker_metrics.annotation.connections`.

    Raises:
        ValueError: if the token is short or a name is none.
        OSError: if the address cannot be used.
    """
    if owner_token is not None and not _TOKEN.fullmatch(owner_token):
        raise ValueError(
            f"the owner's token has {len(owner_token)} characters; use 12 or more letters a-z, A-Z, digits, and . _ ~ - only"
            " (it is part of an address), or none."
        )
    hosts = hosts_of(host, allowed_hosts)
    owner_token = owner_token or secrets.token_urlsafe(16)
    known = {annotator.folded_name for annotator in store.annotators()}
    for name in [tidy_name(name) for name in annotators]:  # all of them, before the first is registered
        if name.casefold() not in known:
            known.add(name.casefold())
            store.register(name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.create_server((host, port), family=family)) as listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        tell(f"annotators: {address}/")
        tell(f"owner:      {address}/owner?token={owner_token}")
        for annotator in store.annotators():
            tell(f"{annotator.name}: {address}/a/{annotator.key}")
        if host not in LOCAL:
            tell(
                f"warning: {host} can be reached from other machines, and pages, votes and tokens travel unencrypted;"
                " put a server with HTTPS before it on a network that you do not trust. Links on the owner's page have the"
                " name under which you open it."
            )
        app = create_app(store, folder, owner_token, hosts=hosts, open_to_all=not annotators)
        uvicorn.Server(configured(app, is_behind_another=bool(allowed_hosts))).run(sockets=[listening])


def configured(app: ASGIApp, *, is_behind_another: bool = False) -> uvicorn.Config:
    """How uvicorn serves the app: connections with deadlines and a limit, no WebSockets, no log of what strangers send.

    Args:
        app: to serve.
        is_behind_another: whether a server on this machine, which has the names that browsers know, says by
            ``X-Forwarded-For`` where requests come from; otherwise anybody could claim any address.
    """
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        proxy_headers=is_behind_another,
        loop="asyncio",
        backlog=BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
    )
