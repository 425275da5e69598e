"""How news travel: queues of what is told, and the packets that carry it (SWIM section 4.1)."""
