"""Whole servers in one Trio loop on virtual time, with faults and a liar, from a seed."""
