"""What an outgoing TLS connection must show (threats T057; [B1.01])."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Sequence
from pathlib import Path


def new_client_context(extra_ca_files: Sequence[Path] = ()) -> ssl.SSLContext:
    """TLS 1.2 or later, the system's authorities and `extra_ca_files`, names by subjectAltName.

    Raises OSError, with the file's name, for files that cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    if extra_ca_files:
        # Python 3.13 asks for extensions that authorities made at home often do not have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in extra_ca_files:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise OSError(errno.EINVAL, "holds no certificates (PEM)", str(path)) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    return context
