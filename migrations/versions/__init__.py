"""The migrations of the tables; shipped in the package as ``flask_communication.migrations``."""
