"""Downloads pip's wheel, which runs unpacked or not, for Pythons that Debian ships without it.

    python fetch_pip.py FOLDER

prints the wheel's path. Runs before anything is installed, on any Python 3.
"""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.request

WHEEL = (
    "https://files.pythonhosted.org/packages/c9/bc/"
    "b7db44f5f39f9d0494071bddae6880eb645970366d0a200022a1a93d57f5/pip-25.0.1-py3-none-any.whl"
)
SHA256 = "c46efd13b6aa8279f33f2864459c8ce587ea6a1a59ee20de055868d8f7688f7f"


def fetch(url: str, sha256: str, folder: str) -> str:
    """Return the path in `folder` of the file at `url`, downloaded unless it exists.

    Raises ValueError if the checksum is wrong, OSError without a connection.
    """
    path = os.path.join(folder, url.rsplit("/", 1)[1])
    if os.path.exists(path):
        return path
    with urllib.request.urlopen(url, timeout=60) as response:
        content = response.read()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise ValueError(f"{url} has SHA-256 {actual}, not {sha256}; try again, or install pip.")
    os.makedirs(folder, exist_ok=True)
    with open(path + ".part", "wb") as file:
        file.write(content)
    os.replace(path + ".part", path)
    return path


if __name__ == "__main__":
    try:
        print(fetch(WHEEL, SHA256, sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: pip could not be downloaded: {error}")
