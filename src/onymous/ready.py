"""`python -m onymous.ready`: ends with 0 where the server of these settings is ready (images).

It is asked every few seconds, so it imports next to nothing. It asks where operators are answered:
`onymous work` answers nowhere else. It goes through no proxy, whatever the environment names, and a
certificate need not be made out to the address of loopback.
"""

from __future__ import annotations

import http.client
import ssl
import sys

from onymous.settings import SettingError, Settings, load_here

#: an address to listen on that means all of them, and where one of those is reached
REACHED = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not bound
TIMEOUT_S = 4.0


def ready(settings: Settings) -> bool:
    """Return whether /readyz of these settings' server answers 200."""
    host, port = settings.host, settings.port
    if settings.manage_port:
        host, port = settings.manage_host, settings.manage_port
    connection = _connection(settings, REACHED.get(host, host), port)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(settings: Settings, host: str, port: int) -> http.client.HTTPConnection:
    if not (settings.tls_cert or settings.tls_dev):
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def run() -> None:
    """Ask once; end with 0 or, with a word about it, 1."""
    try:
        if ready(load_here()):
            return
        sys.exit("not ready")
    except SettingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run()
