"""Ports for servers that tests start."""

import itertools
import os
import socket

PORTS = itertools.count(20_000 + os.getpid() % 1200 * 10)


def free_ports(count):
    """Ports of this test process: below those that the kernel gives to connections, and apart from
    those of test processes at the same time.
    """
    found = []
    while len(found) < count:
        port = next(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found
