"""What members say to each other, and what is known of each of them.

Read ``messages`` (what is said) and ``members`` (what is known, and the one table by which an
update is newer than another) first. ``local_member`` is what we say of ourselves, ``facts`` what
it carries besides; ``sanity``, ``addresses`` and ``rate_limit`` bound what one update may do.
"""
