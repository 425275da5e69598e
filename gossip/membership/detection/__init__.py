"""Who failed: probes, suspicion, crash evidence, planned absence (SWIM, Lifeguard)."""
