"""The command line: runs, shows, resumes and serves studies."""

from api.command.main import app

__all__ = ["app"]
