"""The application, made when it is imported: for ``rq worker -c benchmarks.preloaded``."""

from .host import create_app

app = create_app()
