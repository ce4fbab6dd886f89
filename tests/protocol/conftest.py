"""The daemon, as fixtures."""

from tests.daemon_fixtures import daemon, make_daemon

__all__ = ["daemon", "make_daemon"]
