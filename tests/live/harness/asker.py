"""Asks an agent's API from another host: ``python -m tests.live.harness.asker NAME IPV4 PORT``.

TLS is checked with the certificates in the file CAFILE names, as for the host NAME; without CAFILE
it is asked in the clear. What is asked for, ``[method, path, token, body]``, comes as JSON on
stdin; the status and the answer's text go as JSON to stdout.
"""

import http.client
import json
import os
import socket
import ssl
import sys

from tests.support.patience import GIVE_UP_S

TIMEOUT_S = GIVE_UP_S


def _main(name: str, ipv4: str, port: str) -> None:
    method, path, token, body = json.load(sys.stdin)
    authority = os.environ.get("CAFILE")
    connection = http.client.HTTPConnection(name, timeout=TIMEOUT_S)
    connection.sock = socket.create_connection((ipv4, int(port)), TIMEOUT_S)
    if authority:
        context = ssl.create_default_context(cafile=authority)
        connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    json.dump((answer.status, answer.read().decode()), sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
