"""User events and queries: a layer on membership, as Serf is on memberlist."""
