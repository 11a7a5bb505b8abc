"""State that several processes share beside the log: revocations, tickets, counters of limits."""
