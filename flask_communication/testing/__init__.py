"""For tests of hosts and of providers: ``communication_outbox`` and ``ProviderConformance``.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["flask_communication.testing"]

There is no entry point ``pytest11``, although it would save that line. Pytest would load it, and
with it Flask and SQLAlchemy, in every run of every project of the environment; would compile every
module of this package anew to rewrite its assertions; and would end all those runs if the import
failed. Who wants the fixture names it.
"""

import pytest

# Whoever imports a name, rather than name the plugin, is shown the values of a failed assertion
# too.
pytest.register_assert_rewrite(f"{__name__}.conformance")

from .conformance.provider import ProviderConformance  # noqa: E402
from .outbox import communication_outbox  # noqa: E402

__all__ = ["ProviderConformance", "communication_outbox"]
