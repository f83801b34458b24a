# staple_client.py - a client with Python's redis package, for the table of clients.
#
# usage: staple_client.py PORT CA-FILE stapled|plain CERT KEY
# Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
#
# "stapled" sets ssl_validate_ocsp_stapled=True, which requires a client certificate.
#
# SPDX-License-Identifier: BSD-3-Clause

import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

port, ca, how, cert, key = sys.argv[1:]
options = {"retry": Retry(NoBackoff(), 0)}  # one connection, without retries
if how == "stapled":
    options.update(ssl_validate_ocsp_stapled=True, ssl_certfile=cert, ssl_keyfile=key)
client = redis.Redis(host="127.0.0.1", port=int(port), ssl=True, ssl_ca_certs=ca, **options)
try:
    client.connection_pool.make_connection().connect()
except redis.exceptions.ConnectionError as e:
    print(e)
    sys.exit(3)
