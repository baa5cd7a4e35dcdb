"""The HTTP server for the apt repository, in the lab's network: `static_server ROOT ADDRESS PORT`. Reads only."""

from __future__ import annotations

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    """Files below a folder, over kept connections, which apt makes use of."""

    protocol_version = "HTTP/1.1"
    server_version = "tandem-lab"
    timeout = 60

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of requests that went well; errors go to the log."""


def main(arguments: list[str]) -> None:
    """Serve for ever."""
    root, address, port = arguments
    with ThreadingHTTPServer((address, int(port)), functools.partial(Handler, directory=root)) as server:
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
