"""``attacker-metrics annotate``: ask people what they recognise, and export their votes."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from attacker_metrics.evaluation.commands.options import OK, UsageError, add_overwrite
from attacker_metrics.files.terminal import printable

_EXPORT = "export"


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
        "--owner-token",
        metavar="TOKEN",
        help="opens the owner's page; 12 or more of a-z A-Z 0-9 . _ ~ - (default: a random one, printed)",
    )
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

    manifest = Path(options.manifest)
    database = Database(options.database)
    # uvicorn ends by the signal that stopped it; SIGTERM would leave the votes in the write-ahead log.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        store = open_study(
            manifest, database, task=options.task, seed=options.seed, repeats=options.repeats, catch=options.catch
        )
        names = [name.strip() for name in (options.annotators or "").split(",") if name.strip()]
        serve(
            store,
            manifest.parent,
            host=options.host,
            port=options.port,
            owner_token=options.owner_token,
            annotators=names,
            tell=lambda line: print(printable(line), flush=True),
        )
    except KeyboardInterrupt:  # uvicorn has finished what it was doing
        print(f"stopped; the votes are in {printable(options.database)}.")
    finally:
        database.close()
        signal.signal(signal.SIGTERM, before)


def _export(options: argparse.Namespace) -> None:
    if options.output is None:
        raise ValueError("pass --output FILE.csv, where the votes are to be written.")
    from attacker_metrics.annotation import export

    for path in export(options.database, options.output, overwrite=options.overwrite):
        print(f"wrote {printable(path)}")
