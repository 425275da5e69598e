"""How news travel (SWIM section 4.1).

``broadcast_queue`` has the queue of updates and that of broadcasts, least often sent first;
``outbound`` fills packets with them.
"""
