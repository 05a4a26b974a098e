"""Ask people what they recognise in reconstructions: a web app for annotators, votes in SQLite, the annotation table.

Needs the extra ``annotate`` (Starlette, uvicorn, SQLAlchemy, and the extra ``faithfulness``).
"""

from attacker_metrics._extras import missing_extra

try:
    from attacker_metrics.annotation.answers import read_votes
    from attacker_metrics.annotation.app import create_app
    from attacker_metrics.annotation.database import Database, DatabaseFileError
    from attacker_metrics.annotation.export import export
    from attacker_metrics.annotation.overview import Overview, overview
    from attacker_metrics.annotation.server import open_study, serve
    from attacker_metrics.annotation.store import RefusedError, Settings, Store
    from attacker_metrics.annotation.tasks import Item, read_tasks
except ModuleNotFoundError as error:
    raise missing_extra(f"attacker_metrics.annotation needs {error.name}", "annotate", error) from error

__all__ = [
    "Database",
    "DatabaseFileError",
    "Item",
    "Overview",
    "RefusedError",
    "Settings",
    "Store",
    "create_app",
    "export",
    "open_study",
    "overview",
    "read_tasks",
    "read_votes",
    "serve",
]
