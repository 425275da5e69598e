"""Every bound and interval of files and blocks."""

from gossip.core.tuning import FRAME_BYTES_MAX

BLOCK_BYTES = 1024 * 1024
"""Of each block of a file but the last, which has what is left."""
BLOCKS_MAX = 4096
"""Of one file: its settings can allow no more than 4 GiB."""
SLICE_BYTES = 64 * 1024
"""Of a block in one frame: the loop encrypts it in one go, and no other frame waits for long."""
HOLDERS_MAX = 32
FILE_ID_BYTES, DIGEST_BYTES = 16, 32
FILE_NAME_BYTES_MAX = 400
REASON_CHARACTERS_MAX = 200
FILES_ASKED_MAX = 64
"""Of so many files one question asks who has their blocks: the answer has 512 bytes of each."""

PULL_AFTER_S = 3.0
"""A body may be on its way while its record is here."""
PULL_AGAIN_S, PULL_AGAIN_MAX_S = 5.0, 300.0
PULLS_MAX, CONFIRMS_MAX = 2, 8
CONFIRM_AGAIN_S = 30.0
ORPHAN_S = 86_400.0
"""So long blocks are kept that no name and no upload stands for."""

assert BLOCKS_MAX // 8 * FILES_ASKED_MAX < FRAME_BYTES_MAX
assert BLOCK_BYTES % SLICE_BYTES == 0
