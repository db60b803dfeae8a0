"""A soak under faults: encrypting clients on two servers talk while all that can break does."""
