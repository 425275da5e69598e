"""One node on one event loop: the driver, and what keeps it going."""
