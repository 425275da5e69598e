"""The certificate that the HTTP API shows on TCP: the node's own, as it is now."""

import ssl

from agent.api.interfaces import AgentServices
from agent.exits import AgentError
from agent.net.tls import api_context
from agent.readiness import Stage


class ShownContext:
    """Makes the context for handshakes anew when the node's certificate was replaced."""

    def __init__(self, agent: AgentServices) -> None:
        self._agent = agent
        self._made: tuple[object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context. Raises AgentError while the node has no certificate to show."""
        if self._agent.stage < Stage.KEEPING:
            raise AgentError("this node belongs to no covey yet, and has no certificate to show")
        identity = self._agent.identity
        try:
            found = identity.certificate_file.stat()
        except OSError as error:
            raise AgentError(f"the certificate cannot be read: {error.strerror}") from None
        seen = found.st_ino, found.st_mtime_ns, id(identity)
        if self._made is None or self._made[0] != seen:
            self._made = seen, api_context(identity)
        return self._made[1]
