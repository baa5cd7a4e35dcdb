"""ssh's ProxyCommand: `connect.py CONTROL_SOCKET NODE PORT` hands ssh a connection to NODE.

Copied into the lab's state folder and run by `python3 -I -S`, so it imports the standard library only and starts in
some 20 ms. With ProxyUseFdpass, ssh takes over the socket itself: nothing stands between ssh and the supervisor, which
relays into the lab's network and with whose end the connection ends.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TIMEOUT_SECONDS = 20.0


def connect(control: str, node: str, port: int) -> socket.socket:
    """A stream socket to PORT of NODE, by way of the supervisor listening on CONTROL.

    Raises:
        OSError: nobody listens, or the supervisor refused; the text says which.
    """
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(TIMEOUT_SECONDS)
    folder = os.open(os.path.dirname(control), os.O_PATH)  # noqa: PTH120 - pathlib costs 10 ms of start-up
    try:
        # The path by way of the folder's descriptor stays below the 107 bytes that a socket's address may have.
        stream.connect(f"/proc/self/fd/{folder}/{os.path.basename(control)}")  # noqa: PTH119
    finally:
        os.close(folder)
    stream.sendall(json.dumps({"op": "connect", "node": node, "port": port}).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        byte = stream.recv(1)  # byte by byte: what follows the line belongs to ssh
        if not byte:
            raise OSError("the lab's supervisor hung up")
        answer += byte
    reply = json.loads(answer)
    if "error" in reply:
        raise OSError(reply["error"])
    stream.settimeout(None)
    return stream


def main(arguments: list[str]) -> int:
    """Connect and pass the socket to ssh on standard output."""
    control, node, port = arguments
    try:
        stream = connect(control, node, int(port))
    except (FileNotFoundError, ConnectionRefusedError):
        sys.stderr.write("lab: it is not running; `python -m lab up` starts it\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    with socket.socket(fileno=os.dup(1)) as to_ssh:
        socket.send_fds(to_ssh, [b"\0"], [stream.fileno()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
