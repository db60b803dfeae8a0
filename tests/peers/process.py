"""How the process of a peer is started so that it ends with its parent."""

from __future__ import annotations

import os

# Synapse gets the read end of a pipe as standard input.  The pipe ends with the
# process that holds the other end, however that process dies, and Synapse with it.
BOOT = """
import os, runpy, signal, sys, threading

def follow_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=follow_parent, daemon=True).start()
sys.argv[0] = "synapse"
runpy.run_module("synapse.app.homeserver", run_name="__main__", alter_sys=True)
"""

_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


def clean_environment() -> dict[str, str]:
    """This environment without what would lead Synapse's Python or its requests elsewhere."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "SYNAPSE_")) and key.lower() not in _PROXY_VARIABLES
    }
