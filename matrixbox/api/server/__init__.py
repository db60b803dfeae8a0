"""The Server-Server API, one module for each of its sections."""
