"""``attacker-metrics annotate``: ask people what they recognise, and export their votes."""

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from attacker_metrics._options import OVERWRITE, flag, number, option, whole
from attacker_metrics.commands.parsing import add_command
from attacker_metrics.files.terminal import printable
from attacker_metrics.jobs.ending import OK, UsageError, bad_usage

_EXPORT = "export"
TOKEN_VARIABLE = "ATTACKER_METRICS_OWNER_TOKEN"  # noqa: S105 - the name of it
_LONGEST_TOKEN = 1000

_STUDY = Group("Study", help="Fixed when the database is made; later ones must be the same or absent.", sort_key=2)
_SERVER = Group("Server", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """What ``annotate`` is asked for."""

    manifest: Annotated[
        str,
        option(
            "CSV or Parquet: dataset, model, attack, original, reconstruction (paths relative to the manifest), class, and"
            " optionally candidates, up to 20 separated by semicolons; or the word 'export', to write the votes"
        ),
    ] = field(kw_only=False)
    database: Annotated[Path, option("file of the votes; made if absent")]
    output: Annotated[Path | None, option("of 'export': the annotation table, CSV; all answers go beside")] = None
    overwrite: Annotated[bool, flag(OVERWRITE)] = False
    task: Annotated[
        Literal["category", "pair"] | None,
        option(
            "category: choose what the reconstruction shows; pair: original and reconstruction side by side, same or"
            " different (default: category)",
            group=_STUDY,
        ),
    ] = None
    repeats: Annotated[
        float | None,
        option("share of the items that are shown twice (default: 0.1)", converter=number, group=_STUDY),
    ] = None
    catch: Annotated[
        float | None,
        option(
            "share of catch trials: originals in the place of reconstructions (default: 0.1); of pairs, ones that do not"
            " belong together (default: 0.5)",
            converter=number,
            group=_STUDY,
        ),
    ] = None
    seed: Annotated[int | None, option("of orders and candidates (default: 0)", converter=whole, group=_STUDY)] = None
    host: Annotated[str, option("address to listen on", group=_SERVER)] = "127.0.0.1"
    port: Annotated[int, option("0: a free one", converter=whole, group=_SERVER)] = 8000
    allowed_hosts: Annotated[
        str | None,
        option(
            "more names under which pages are served, separated by commas, e.g. study.example behind a server of that name,"
            " *.example.org, or * for any (default: the address listened on and this machine's; of 0.0.0.0, any IP address)",
            group=_SERVER,
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        option(
            "holds the token that opens the owner's page, 12 or more of a-z A-Z 0-9 . _ ~ -, readable by you only (default:"
            f" the environment variable {TOKEN_VARIABLE}, or else a random one, printed)",
            group=_SERVER,
        ),
    ] = None
    owner_token: Annotated[
        str | None, option("the same, deprecated: everybody on this machine can see it", group=_SERVER)
    ] = None
    annotators: Annotated[
        str | None,
        option(
            "names of those who take part, separated by commas, each by a personal link, which is printed; at a start with"
            " names nobody else can begin",
            group=_SERVER,
        ),
    ] = None


def add(app: App) -> None:
    """Add the command."""
    add_command(
        app,
        annotate,
        "Examples:",
        "  attacker-metrics annotate trials.csv --database votes.sqlite",
        "  attacker-metrics annotate export --database votes.sqlite --output annotations.csv",
    )


def annotate(options: AnnotateOptions) -> int:
    """Ask people what they recognise in reconstructions: a web app, and the export of its votes.

    Serves reconstructions to annotators in the browser and keeps their votes in an SQLite file; nothing is sent anywhere
    else. Needs the extra 'annotate'.
    """
    if options.token_file is not None and options.owner_token is not None:
        raise UsageError("--token-file and --owner-token name two tokens; pass --token-file alone.")
    with bad_usage(ValueError):
        (_export if options.manifest == _EXPORT else _serve)(options)
    return OK


def _serve(options: AnnotateOptions) -> None:
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


def _owner_token(options: AnnotateOptions) -> str | None:
    """From the file, the command line or the environment; None for a random one."""
    if options.owner_token is not None:
        print(
            "attacker-metrics: warning: everybody on this machine can see the token of --owner-token in the list of"
            f" processes; use --token-file FILE or the environment variable {TOKEN_VARIABLE}. The option will go.",
            file=sys.stderr,
        )
        return options.owner_token
    path = options.token_file
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


def _export(options: AnnotateOptions) -> None:
    if options.output is None:
        raise ValueError("pass --output FILE.csv, where the votes are to be written.")
    from attacker_metrics.annotation import export

    for path in export(options.database, options.output, overwrite=options.overwrite):
        print(f"wrote {printable(path)}")
