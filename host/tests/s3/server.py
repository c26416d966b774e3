"""OpenStack Swift with its S3 API, whole and on one machine: its proxy and its account, container and object servers
in one process, with one copy of each thing.

    server.py FOLDER PORT ACCESS_KEY_ID    the secret is the first line of what is read

It listens on loopback, keeps everything in FOLDER, and ends when it is killed. Nothing of it is changed: requests are
signed, checked and answered as in a cluster.
"""

import logging
import os
import sys

from swift.common import utils

utils.monkey_patch()

import eventlet
from eventlet import wsgi
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.ring import RingBuilder
from swift.common.wsgi import loadapp

PART_POWER = 4
PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_tests_{user} = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""
STORAGE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


def main():
    folder, port, access_key_id = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    account, user = access_key_id.split(":")
    secret = sys.stdin.readline().strip()
    os.makedirs(os.path.join(folder, "devices", "one"))
    write(folder, "swift.conf", f"[swift-hash]\nswift_hash_path_suffix = {os.urandom(8).hex()}\n")
    utils.set_swift_dir(folder)
    common = {
        "swift_dir": folder,
        "devices": os.path.join(folder, "devices"),
        "mount_check": "false",
        "fallocate_reserve": "0",
        "recon_cache_path": folder,
    }
    servers = []
    for kind in ("account", "container", "object"):
        listener = eventlet.listen(("127.0.0.1", 0))
        ring(os.path.join(folder, f"{kind}.ring.gz"), listener.getsockname()[1])
        conf = write(folder, f"{kind}.conf", STORAGE.format(kind=kind))
        servers.append((listener, loadapp(conf, common)))
    conf = write(folder, "proxy.conf", PROXY.format(user=user, account=account, secret=secret))
    servers.append((eventlet.listen(("127.0.0.1", port)), loadapp(conf, common)))
    running = [
        eventlet.spawn(
            wsgi.server, listener, app, logging.getLogger("requests"), protocol=SwiftHttpProtocol,
            capitalize_response_headers=False,
        )
        for listener, app in servers
    ]
    running[-1].wait()


def write(folder, name, text):
    path = os.path.join(folder, name)
    # It may hold the secret.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
    return path


def ring(path, port):
    """Tells who keeps what: one device, all of it."""
    builder = RingBuilder(PART_POWER, 1, 0)
    builder.add_dev({"id": 0, "region": 0, "zone": 0, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "one"})
    builder.rebalance()
    builder.get_ring().save(path)


main()
