"""Pages of a backup: what is none is refused, and nothing ends the agent."""

from contextlib import suppress

import pytest

from agent.backup.key_pages import (
    PAGE_BYTES_WANTED,
    VERSION_FIELDS,
    SavedKey,
    SavedPage,
    decode_page,
    encode_page,
)
from agent.exits import AgentError
from gossip.kv.limits import RESTORED_VERSIONS_MAX
from gossip.kv.records import Version
from tests.fuzz.hostile import bit_flips, truncations

ONE = Version(1, 1, 5, b"on")
PAGE = SavedPage(VERSION_FIELDS, (SavedKey("lamp", (ONE,)),), "lamp", False)


def test_a_page_comes_back() -> None:
    assert decode_page(encode_page(PAGE)) == PAGE


def test_what_is_spoiled_is_read_or_refused_and_nothing_else() -> None:
    data = encode_page(PAGE)
    for bad in (*truncations(data), *bit_flips(data)):
        with suppress(AgentError):
            decode_page(bad)


@pytest.mark.parametrize(
    "versions", [(), tuple(Version(1, n + 1, 5, b"") for n in range(RESTORED_VERSIONS_MAX + 1))]
)
def test_keys_with_no_versions_or_too_many_are_refused(versions: tuple[Version, ...]) -> None:
    with pytest.raises(AgentError, match="no page"):
        decode_page(encode_page(SavedPage(VERSION_FIELDS, (SavedKey("lamp", versions),))))


def test_a_page_that_is_sent_leaves_room_for_the_largest_key() -> None:
    from agent.backup.key_pages import PAGE_BYTES_MAX
    from gossip.kv.restored_key import RESTORED_BYTES_MAX

    assert PAGE_BYTES_WANTED + 2 * RESTORED_BYTES_MAX < PAGE_BYTES_MAX
