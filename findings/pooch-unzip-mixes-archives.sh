#!/usr/bin/env bash
# pooch: the list of files that `Unzip` returns for an archive holds files of another archive.
#
# In two ways. A processor remembers the folder of the first archive that it unpacked: used for a second one it unpacks
# that into the first one's folder as well, and returns the files of both. And when an archive is renewed (another
# checksum, "update"), the new one is unpacked over the old: files that it no longer has stay, and are returned.
# The documentation says that what is returned is "a list of the full path to all files in the extracted archive".
# A new processor for every call avoids the first; the folder has to be removed by hand for the second.
# fsslib unpacks by itself, into a working folder whose places are moved when all is there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pooch==1.9.0
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 "$folder/venv/bin/python" - "$folder" <<'END'
import functools
import hashlib
import http.server
import sys
import threading
import zipfile
from pathlib import Path

import pooch

print("pooch", pooch.__version__)
pooch.get_logger().setLevel("ERROR")
site, cache = Path(sys.argv[1], "site"), Path(sys.argv[1], "cache")
site.mkdir()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
threading.Thread(target=server.serve_forever, daemon=True).start()


def offered(name, *members):
    with zipfile.ZipFile(site / name, "w") as archive:
        for member in members:
            archive.writestr(member, member)
    return hashlib.sha256((site / name).read_bytes()).hexdigest()


def unpacked(name, checksum, processor):
    address = f"http://127.0.0.1:{server.server_port}/{name}"
    return sorted(Path(path).name for path in pooch.retrieve(address, checksum, name, cache, processor))


images, masks, shared = offered("images.zip", "a.jpg"), offered("masks.zip", "a.png"), pooch.Unzip()
print("  images.zip:", unpacked("images.zip", images, shared))
second = unpacked("masks.zip", masks, shared)
print("  masks.zip, same processor:", second)
first_version = unpacked("set.zip", offered("set.zip", "1.jpg", "2.jpg"), pooch.Unzip())
renewed = unpacked("set.zip", offered("set.zip", "1.jpg", "3.jpg"), pooch.Unzip())
print("  set.zip:", first_version, "and renewed, without 2.jpg:", renewed)
server.shutdown()
assert second == ["a.jpg", "a.png"], "CHANGED: a processor serves two archives"
assert renewed == ["1.jpg", "2.jpg", "3.jpg"], "CHANGED: a renewed archive has its own files only"
END
