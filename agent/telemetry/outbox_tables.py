"""The tables of ``telemetry.db`` as their checksums know them; ``outbox_schema.py`` makes them."""

from agent.store.checksums import Table

READINGS = Table(
    "readings",
    ("position", "time_ns", "sensor", "body", "checksum"),
    rowid="position",
    unsummed=(int, int, str, bytes),
)
BOOTS = Table(
    "boots", ("first_position", "boot", "checksum", "first_sequence"), rowid="first_position"
)
PROGRESS = Table("progress", ("id", "cursor", "beyond", "checksum"), rowid="id")
DEAD_LETTERS = Table(
    "dead_letters",
    ("number", "reading_id", "time_ns", "sensor", "body", "reason", "buried_at_ns", "checksum"),
    rowid="number",
)
LETTER_TOTALS = Table(
    "letter_totals",
    (
        "id",
        "buried",
        "held",
        "held_bytes",
        "replayed",
        "dropped",
        "forgotten",
        "damaged",
        "checksum",
    ),
    rowid="id",
)
EVICTED = Table("evicted", ("block", "bits", "checksum"), rowid="block")
DROPS = Table("drops", ("kind", "readings", "checksum"))
LOSSES = Table(
    "losses", ("number", "first", "last", "readings", "found_at_ns", "checksum"), rowid="number"
)

NUMBERS = (
    "SELECT coalesce((SELECT max(position) FROM readings), 0),"
    " coalesce((SELECT cursor FROM progress), 0)"
)
"""What is noted beside the file after each commit: the last position, and the cursor."""
