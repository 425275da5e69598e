"""The ground of every protocol: ids, clock, wire, envelope, errors, tuning."""
