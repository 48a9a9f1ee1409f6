"""The pytest plugin for hosts and providers: ``communication_outbox``, ``ProviderConformance``.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["flask_communication.testing"]

There is no entry point ``pytest11``, although it would save that line. Pytest would load it, and
with it Flask and SQLAlchemy, in every run of every project of the environment. It would compile
every module of this package again to rewrite its assertions, and a failed import would end all
those runs.
"""

import pytest

# So that failed assertions show their values also where only a name is imported.
pytest.register_assert_rewrite(f"{__name__}.conformance")

from .conformance.provider import ProviderConformance  # noqa: E402
from .outbox import communication_outbox  # noqa: E402

__all__ = ["ProviderConformance", "communication_outbox"]
