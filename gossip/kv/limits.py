"""Every bound and interval of the state plane.

A limit exists so that a peer's mistake, or a guest's greed, costs a counted refusal instead of
memory. Sizes follow from one number that is not ours: a frame has at most 1 MiB.
"""

from gossip.core.tuning import FRAME_BYTES_MAX

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 256 * 1024
"""Bound of all values that live under one key when it is written. Three coordinators at once
can thus leave three times this much, which still fits a frame."""

ENTRIES_MAX = 512
"""Of a set or a map: each is a version, whose dot is in the context of each read of the key."""
ENTRY_BYTES_MAX = 512
"""Of a member of a set, and of a field's name."""
RESTORED_VERSIONS_MAX = 4 * ENTRIES_MAX
"""Of a key out of a backup; more than ``ENTRIES_MAX``, for there may have been siblings."""

SPACE_NAME_BYTES_MAX = 128
SPACES_MAX = 256
QUOTAS_MAX = 64
"""So many spaces have a quota: each owner tells of each, and of each of its partitions."""
QUOTA_MAX = 2**53
QUOTA_ROUND_S = 10.0
"""How often the owners are asked how much there is in the spaces that have a quota."""
TTL_S_MIN, TTL_S_MAX = 1.0, 10 * 366 * 86_400.0

CLOCK_PEERS = 5
"""So many others are asked what time it is."""
CLOCK_START_S, CLOCK_ROUND_S = 1.0, 3.0
CLOCK_INTERVAL_S, CLOCK_AGAIN_S = 600.0, 5.0
"""How often; and how soon again while it is not agreed, then twice as late each time."""
EXPIRY_LOOK_S, EXPIRY_NEXT_PAGE_S = 2.0, 0.1
"""How often an owner looks for what has expired, where anything does at all."""
EXPIRY_PAGE = 128
EXPIRING_MAX = 256
"""So many deletes of expired values one owner has under way."""
EXPIRY_GRACE_S = 60.0
"""So late the next owner deletes what the one before it should have."""
EXPIRY_RETRY_S = 30.0

CONTEXT_BYTES_MAX = 16 * 1024
CONTEXT_ACTORS_MAX = 16
"""From here on, a record forgets context that its partition's clock covers without a gap."""

REQUEST_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S_MAX = 300.0
COORDINATOR_SHARE = 0.8
"""A forwarded write gets this part of the caller's patience, so that its answer arrives in time."""

FULL_AGAIN_S = 5.0
"""How often an owner is asked that has said that its disk takes no puts."""

READY_TIMEOUT_S = 0.5
"""How long a forwarder waits for a sign of life before it tries the next owner."""
FRAME_FRESH_S = 1.0
"""A peer that spoke this recently needs no such sign."""
HEDGE_S = 0.25
"""A read asks further owners when the first have not answered in this time."""
REFUSALS_MAX = 8
"""How often one request follows a newer placement before it lets its time run out."""

LIST_ENTRIES_MAX = 1000
PAGE_BYTES_MAX = 256 * 1024
PAGE_ENTRIES_MAX = 512
EXCHANGE_BYTES_MAX = 64 * 1024
EXCHANGE_KEYS_MAX = 128
"""Of what two owners tell each other at once: to merge it takes milliseconds, in which reads and
writes wait."""

SCANS_MAX = 64
SCAN_STEP_PARTITIONS = 8
"""So many are read in one go: a partition takes a fifth of a millisecond."""
SCAN_PARTITION_ENTRIES = 8
"""Read of each partition at least; of 256 partitions, some 480 keys are then known to be first."""

MISPLACED_LOOK_ENTRIES = 64
MISPLACED_MOVES_MAX = 16
"""So many keys are on their way home at a time."""

REQUESTS_MAX = 10_000
PARKED_FRAMES_MAX = 1_000
PARKED_BYTES_MAX = 8 * FRAME_BYTES_MAX
"""Anybody with a certificate can name an epoch that is yet to come."""
ASK_INTERVAL_S = 1.0
"""At most one request for a registry to one peer in this time."""
ASK_INTERVAL_MAX_S = 32.0
"""So seldom at last is asked who names a registry and never shows it."""

BEHIND_PATIENCE_S = 0.5
"""Whoever hears of a newer registry waits so long for it: the issuer offers it to all at once."""

SETTLE_S = 5.0
"""How long an issuer that starts waits for members that know more than it does."""

LEASE_S = 30.0
LEASE_RENEWAL_S = 10.0
SUBSCRIPTIONS_MAX = 1_000
PEER_SUBSCRIPTIONS_MAX = 128
"""Of these, of one node; a watch beyond is told when it asks, every ten seconds."""
WATCH_MEMORY_DOTS = 32_768
"""So many changes a watch remembers that most owners do not have yet; more are told later."""
TELLER_DOTS_MIN = 1_024
"""Of these, each owner may tell its share, and so many however many they are."""
WATCH_SETTLE_S = 2.0
"""How long after a change a watch asks the owners what they have, so that its token gets on."""
WATCH_ASKS_MAX = 8
"""So many of these questions to one node are under way at once."""
WATCH_PATIENCE_S = 60.0
"""How long a watch looks for somebody who can tell what is missing, before it says: a gap."""
WATCH_TOKEN_BYTES_MAX = 256 * 1024
DELETIONS_REMEMBERED_MAX = 8_192
"""Of so many deletes an owner can say which keys they were of."""

SURVEY_INTERVAL_S = 30.0
"""One other owner is compared with in this time; jittered by a quarter."""
HINTS_MAX = 4_096
"""Keys of which one owner that is away is to be told."""
HINT_DOTS_MAX = 64
"""Of one key; what is beyond is left to the comparison."""
HINTS_AT_ONCE, HINT_PAUSE_S = 64, 0.01
SPARED_S_MAX = 6 * 3600.0
"""So seldom at last asks who spares its battery, or its link."""
SURVEY_PARTITIONS_MAX = 64
SUMMARY_BYTES = 16
SUMMARY_GAP_S = 0.5
"""One other node is answered so often at most; it asks half as often."""
SESSIONS_MAX = 8
SESSION_TIMEOUT_S = 10.0
PASS_S = 300.0
"""One that is not done by then is begun again behind those that wait; what it copied stays."""
TRANSFERS_QUEUED_MAX = SESSIONS_MAX - 2
"""So many wait to be copied; the rest of the passes is for comparisons and repairs."""
RETRY_S = 1.0
"""How often unfinished hand-offs look for a partner, and writes tell again what a stream lost."""

REPORT_DELAY_S = 0.1
"""How long a node gathers what it tells the issuer, and the issuer what it makes a registry of."""
REPORT_INTERVAL_S = 2.0
"""How often a node repeats what the issuer has not acted upon."""
ADVANCE_INTERVAL_S = 1.0
"""Between two registries that only carry partitions on to their next stage."""

PRESENCE_CHECK_S = 60.0
PRESENCE_CHECKS_MAX = 10
"""So often the issuer looks in vain for one that owns nothing: ten minutes."""
PRESENCE_INTERVAL_S = 20.0
"""How often such a one says that it is there."""

MISSING_AFTER_S = 1800.0
"""An owner that was not heard for so long is missing: others are to have its partitions."""
CONTACT_LOOKS = 10
"""So often it is looked for in that time."""
CONTACT_RETURN_LOOKS = 3
"""At so many looks one after the other it is heard before it gets a share again."""
CONTACT_FLAPS_MAX = 3
"""That number is doubled each time it was missing lately, so often at most."""
CONTACT_STEADY_LOOKS = 48 * CONTACT_LOOKS
"""Who was heard at so many, which is a day, begins anew."""

assert 3 * VALUE_BYTES_MAX + PAGE_BYTES_MAX <= FRAME_BYTES_MAX
assert HEDGE_S < READY_TIMEOUT_S < REQUEST_TIMEOUT_S
assert PRESENCE_INTERVAL_S * 2 < PRESENCE_CHECK_S, "a look is not in vain for one lost frame"
assert LEASE_RENEWAL_S * 2 < LEASE_S, "a lease survives one lost renewal"
assert SCAN_PARTITION_ENTRIES <= PAGE_ENTRIES_MAX
