"""Tests of what goes out: names, addresses, TLS, HTTP."""
