"""The history of our tables; shipped in the package as ``flask_communication.migrations``."""
