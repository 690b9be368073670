"""No other machine for the tests and the programs they start: Python imports this as it starts.

Where a folder on PYTHONPATH holds it, that is; tests/conftest.py sees to that. What was tried is
noted in the file OFFLINE_LOG as well, for a program may pass over the error. Python's own sockets
alone are seen, not those that TensorFlow, gRPC and XLA open in C++.
"""

import os
import sys

_HERE = {None, "", "localhost", "127.0.0.1", "::1"}
_HOST = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0}
_ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}


def _refuse(event, arguments):
    if event in _HOST:
        host = arguments[_HOST[event]]
    elif event in _ADDRESS and isinstance(arguments[_ADDRESS[event]], tuple):
        host = arguments[_ADDRESS[event]][0]
    else:  # the address of a socket of this machine (AF_UNIX) is no tuple
        return
    host = os.fsdecode(host) if isinstance(host, str | bytes) else None  # else: AF_NETLINK
    if host not in _HERE:
        with open(os.environ["OFFLINE_LOG"], "a") as log:
            log.write(f"{event} {host!r} by {sys.argv}\n")
        raise ConnectionRefusedError(f"{event} {host!r}: the tests run without a network")


sys.addaudithook(_refuse)
