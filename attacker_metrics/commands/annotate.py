"""``attacker-metrics annotate``: ask people what they recognise, and export their votes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from attacker_metrics.commands.options import OK, UsageError, add_overwrite
from attacker_metrics.files.terminal import printable

_EXPORT = "export"
TOKEN_VARIABLE = "ATTACKER_METRICS_OWNER_TOKEN"  # noqa: S105 - the name of it
_LONGEST_TOKEN = 1000


def add(commands: Any) -> None:
    """Add the command's parser."""
    command = commands.add_parser(
        "annotate",
        help="ask people what they recognise in reconstructions: a web app, and the export of its votes",
        usage="%(prog)s MANIFEST --database FILE [options]\n       %(prog)s export --database FILE --output CSV",
        description="Serve reconstructions to annotators in the browser and keep their votes in an SQLite file; nothing is"
        " sent anywhere else. Needs the extra 'annotate'.",
    )
    command.set_defaults(command=annotate)
    command.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="CSV or Parquet: dataset, model, attack, original, reconstruction (paths relative to the manifest), class, and"
        " optionally candidates, up to 20 separated by semicolons; or the word 'export', to write the votes",
    )
    command.add_argument("--database", type=Path, required=True, metavar="FILE", help="where the votes are; made if absent")
    command.add_argument(
        "--output", type=Path, metavar="CSV", help="of 'export': the annotation table; all answers go beside"
    )
    add_overwrite(command)
    study = command.add_argument_group("study", "fixed when the database is made; later ones must be the same or absent")
    study.add_argument(
        "--task",
        choices=("category", "pair"),
        help="category: choose what the reconstruction shows; pair: original and reconstruction side by side, same or"
        " different (default: category)",
    )
    study.add_argument("--repeats", type=float, metavar="SHARE", help="of the items that are shown twice (default: 0.1)")
    study.add_argument(
        "--catch",
        type=float,
        metavar="SHARE",
        help="of catch trials: originals in the place of reconstructions (default: 0.1); of pairs, ones that do not belong"
        " together (default: 0.5)",
    )
    study.add_argument("--seed", type=int, metavar="N", help="of orders and candidates (default: 0)")
    server = command.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: %(default)s)")
    server.add_argument("--port", type=int, default=8000, metavar="N", help="(default: %(default)s; 0: a free one)")
    server.add_argument(
        "--allowed-hosts",
        metavar="NAME,...",
        help="more names under which pages are served, e.g. study.example behind a server of that name, *.example.org, or *"
        " for any (default: the address listened on and this machine's; of 0.0.0.0, any IP address)",
    )
    token = server.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the token that opens the owner's page, 12 or more of a-z A-Z 0-9 . _ ~ -, readable by you only (default:"
        f" the environment variable {TOKEN_VARIABLE}, or else a random one, printed)",
    )
    token.add_argument("--owner-token", metavar="TOKEN", help="the same, deprecated: everybody on this machine can see it")
    server.add_argument(
        "--annotators",
        metavar="NAME,...",
        help="who takes part, each by a personal link, which is printed; at a start with names nobody else can begin",
    )


def annotate(options: argparse.Namespace) -> int:
    """Serve until interrupted, or export."""
    try:
        (_export if options.manifest == _EXPORT else _serve)(options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return OK


def _serve(options: argparse.Namespace) -> None:
    if options.output is not None:
        raise ValueError("--output belongs to 'attacker-metrics annotate export'.")
    if not 0 <= options.port < 65536:
        raise ValueError(f"--port is {options.port}; ports are 0 to 65535.")
    from attacker_metrics.annotation import Database, open_study, serve

    owner_token = _owner_token(options)
    manifest = Path(options.manifest)
    database = Database(options.database)
    # uvicorn ends by the signal that stopped it; SIGTERM would leave the votes in the write-ahead log.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        store = open_study(
            manifest, database, task=options.task, seed=options.seed, repeats=options.repeats, catch=options.catch
        )
        serve(
            store,
            manifest.parent,
            host=options.host,
            port=options.port,
            owner_token=owner_token,
            annotators=_listed(options.annotators),
            allowed_hosts=_listed(options.allowed_hosts),
            tell=lambda line: print(printable(line), flush=True),
        )
    except KeyboardInterrupt:  # uvicorn has finished what it was doing
        print(f"stopped; the votes are in {printable(options.database)}.")
    finally:
        database.close()
        signal.signal(signal.SIGTERM, before)


def _listed(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _owner_token(options: argparse.Namespace) -> str | None:
    """From the file, the command line or the environment; None for a random one."""
    if options.owner_token is not None:
        print(
            "attacker-metrics: warning: everybody on this machine can see the token of --owner-token in the list of"
            f" processes; use --token-file FILE or the environment variable {TOKEN_VARIABLE}. The option will go.",
            file=sys.stderr,
        )
        token: str = options.owner_token
        return token
    path: Path | None = options.token_file
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    if not path.is_file():
        raise FileNotFoundError(f"--token-file {path}: there is no such file.")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ValueError(f"--token-file {path} can be read by others on this machine; run chmod 600 on it.")
    with path.open(encoding="utf-8", errors="replace") as file:
        token = file.read(_LONGEST_TOKEN + 1).strip()
    if not token or len(token) > _LONGEST_TOKEN:
        raise ValueError(f"--token-file {path} holds no token; write one there, 12 characters or more and nothing else.")
    return token


def _export(options: argparse.Namespace) -> None:
    if options.output is None:
        raise ValueError("pass --output FILE.csv, where the votes are to be written.")
    from attacker_metrics.annotation import export

    for path in export(options.database, options.output, overwrite=options.overwrite):
        print(f"wrote {printable(path)}")
