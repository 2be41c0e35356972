"""Pages for people: rendered on the server, live by server-sent events, nothing loaded from elsewhere."""

from api.pages.routes import install

__all__ = ["install"]
