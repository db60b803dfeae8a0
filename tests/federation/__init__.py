"""Federation: its parts, and whole servers against a real Synapse and a hostile one."""
