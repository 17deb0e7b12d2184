"""The plan: which jobs an experiment consists of, and what each reads, writes and needs."""
