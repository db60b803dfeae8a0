"""Mail: a mail server for tests, and how the server gets along with it and with worse ones."""
