# example.py - connects to Valkey and requires a good staple:  python3 example.py HOST PORT CA-FILE
#
# SPDX-License-Identifier: BSD-3-Clause

import sys

import redis  # or: import valkey as redis
from staple import stapled

host, port, ca = sys.argv[1:4]
pool = redis.ConnectionPool(
    connection_class=stapled(redis.SSLConnection), host=host, port=int(port), ssl_ca_certs=ca, ssl_check_hostname=True)
print(redis.Redis(connection_pool=pool).ping())
