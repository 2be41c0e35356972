"""``python -m api.command`` is ``apportion``."""

from api.command.main import app

app(prog_name="apportion")
