"""What every test process begins with."""

import os

# A worker process of the runner is told the width of its terminal, and a console that is made at import would keep it
# whatever a test asks for.
os.environ.pop("COLUMNS", None)
