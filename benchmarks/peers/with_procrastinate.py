"""Procrastinate: procrastinate --app=benchmarks.peers.with_procrastinate.app worker -c 50 (on
PostgreSQL).
"""

import os

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from . import deliver

_address = os.environ["BENCH_DATABASE"].replace("+psycopg", "")
app = App(connector=PsycopgConnector(conninfo=_address, max_size=60))
send = app.task(deliver, name="deliver")


def put(numbers: range) -> None:
    """Make the tables, and enqueue."""
    with app.replace_connector(SyncPsycopgConnector(conninfo=_address)) as sync, sync.open():
        sync.schema_manager.apply_schema()
        sync.tasks["deliver"].batch_defer(*({"number": number} for number in numbers))
