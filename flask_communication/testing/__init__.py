"""For tests of hosts and of providers; so far ``communication_outbox``.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["flask_communication.testing"]

There is no entry point ``pytest11``, although it would save that line. Pytest would load it, and with it
Flask and SQLAlchemy, in every run of every project of the environment; would compile every module of this
package anew to rewrite its assertions; and would end all those runs if the import failed. Who wants the
fixture names it.
"""

from .outbox import communication_outbox

__all__ = ["communication_outbox"]
