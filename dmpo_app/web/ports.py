"""The port to listen on."""

import os
import socket

from dmpo_app.errors import SetupError


def free_port(host: str, port: int) -> int:
    """Return `port` if it is free; 0 takes any. Raises SetupError with advice rather than taking another one."""
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # elsewhere the option would let two servers share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            raise SetupError(port_taken_message(host, port)) from error
        return int(probe.getsockname()[1])


def port_taken_message(host: str, port: int) -> str:
    """Error message for a port that is taken, with advice."""
    return (
        f"cannot listen on {host} port {port}: another program uses it (a studio that still runs?), or the address is "
        f"not one of this machine. Stop the other program, or choose another port: `dmpo serve --port {port + 1}` or "
        "DMPO_PORT; --port 0 takes any free one."
    )
