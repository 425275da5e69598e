"""What runs on the one event loop: watched tasks, slices of long work, bounded queues."""
