"""How news travel (SWIM section 4.1).

``update_queue`` and ``broadcast_queue`` hold what is told, least often told first; ``outbound``
fills packets with it.
"""
