"""Enqueue with one of them: python -m benchmarks.peers.put with_celery 1000."""

import sys
from importlib import import_module

import_module(f"benchmarks.peers.{sys.argv[1]}").put(range(int(sys.argv[2])))
