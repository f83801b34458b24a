// node_client.js - clients of Node.js, as they come and with utils/clients/node, for the table of clients.
//
// usage: node_client.js ioredis|iovalkey|redis|glide plain|require|soft PORT CA-FILE
//        node_client.js version PACKAGE          prints the version in package.json; Node.js: that of Node.js
// Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output. A command is queued
// before the connection is made, so that the server sees whether a rejected one gets any.
//
// SPDX-License-Identifier: BSD-3-Clause
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const [library, policy, port, file] = process.argv.slice(2);
if (library === 'version') {
    const { dependencies } = JSON.parse(fs.readFileSync(path.join(__dirname, 'package.json')));
    console.log(policy.replace(/.*\//, ''), dependencies[policy] || process.versions.node);
    process.exit();
}
const ca = fs.readFileSync(file, 'utf8');
const recipe = path.join(__dirname, '../../../utils/clients/node/staple.js');
const tls = policy === 'plain' ? { ca } : require(recipe).stapled({ ca, policy });

function end(error) {
    if (error) console.log(String(error));
    process.exit(error ? 3 : 0);
}

if (library === 'redis') {
    const client = require('redis').createClient({ socket: { host: '127.0.0.1', port, tls: true,
        reconnectStrategy: false, ...tls } });
    client.on('error', end).on('connect', () => end()).connect().catch(end);
    client.ping().catch(end);
} else if (library === 'glide') {
    // Its TLS is Rust's: it has no option that concerns OCSP.
    const { GlideClient } = require('@valkey/valkey-glide');
    GlideClient.createClient({ addresses: [{ host: '127.0.0.1', port: +port }], useTLS: true, requestTimeout: 2000,
        connectionBackoff: { numberOfRetries: 0, factor: 1, exponentBase: 1 },
        advancedConfiguration: { tlsAdvancedConfiguration: { rootCertificates: Buffer.from(ca) } } })
        .then(() => end(), end);
} else {
    const client = new (require(library))({ host: '127.0.0.1', port: +port, tls, retryStrategy: null });
    client.on('error', end).on('connect', () => end());
    client.ping().catch(end);
}
