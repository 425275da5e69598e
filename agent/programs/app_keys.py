"""Who speaks at the apps' socket: each app has a key of its own, for as long as the agent runs."""

import hmac
import secrets

KEY_BYTES = 32


class AppKeys:
    """The keys that were given out, and whom each belongs to."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}

    def key_of(self, name: str) -> str:
        """Return the key of an app, which is made when it is asked for first."""
        if name not in self._keys:
            self._keys[name] = secrets.token_urlsafe(KEY_BYTES)
        return self._keys[name]

    def who_has(self, key: str) -> str:
        """Return the app whose key this is; empty if it is nobody's."""
        shown = key.encode()
        found = ""
        for name, given in self._keys.items():
            if hmac.compare_digest(given.encode(), shown):
                found = name
        return found
