"""What gossip missed: tables compared and merged over streams."""
