"""A model server without a model, up in a tenth of a second: for tests of who is started, swapped or replaced.

Understands the arguments of `vllm serve` and answers what the fleet asks: health, models, completions, sleep mode. A
POST to /hang makes later completions wait for ever while /health stays fine. Environment: REFUSES_SLEEP makes it stop
at once where sleep mode is asked for, as vLLM's CPU build does; START_SECONDS lets its start take that long.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asleep = hangs = False
name = ""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        known = {"/health": {}, "/v1/models": {"data": [{"id": name}]}}
        self.answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        global asleep, hangs
        self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        if path in ("/sleep", "/wake_up"):
            asleep = path == "/sleep"
        elif path == "/hang":
            hangs = True
        elif path == "/v1/completions":
            while hangs:
                time.sleep(0.1)
            if asleep:
                return self.answer(503, {"error": {"message": "asleep"}})
        return self.answer(200, {"choices": [], "usage": {"completion_tokens": 1, "prompt_tokens": 1}})

    def answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    global name
    parser = argparse.ArgumentParser()
    parser.add_argument("--served-model-name")
    parser.add_argument("--port", type=int)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    options, _ = parser.parse_known_args()
    if options.enable_sleep_mode and "REFUSES_SLEEP" in os.environ:
        sys.exit("sleep mode is not supported here")
    assert not options.enable_sleep_mode or os.environ["VLLM_SERVER_DEV_MODE"] == "1"
    name = options.served_model_name
    time.sleep(float(os.environ.get("START_SECONDS", "0")))
    print(f"serving {name} on {options.port}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
