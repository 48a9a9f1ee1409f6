"""The application, made when this is imported: for a plain ``rq worker -c benchmarks.preloaded``."""

from .host import create_app

app = create_app()
