"""Handlers of the client-server API, a module for each module of the specification."""
