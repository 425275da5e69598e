"""Who is listed, and the bounds of the list.

``member_list`` changes it and tells of it; ``departed`` keeps the addresses of those that were
taken off, ``flap_damping`` tells less of who comes and goes, ``id_conflicts`` finds two devices
with one identity, and ``contact_order`` says whom to try first.
"""
