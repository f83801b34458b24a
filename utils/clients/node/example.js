// example.js - connects to Valkey and requires a good staple:  node example.js HOST PORT CA-FILE
//
// SPDX-License-Identifier: BSD-3-Clause
'use strict';
const fs = require('node:fs');
const Redis = require('ioredis'); // or: require('iovalkey')
const { stapled } = require('./staple');

const [host, port, file] = process.argv.slice(2);
const client = new Redis({ host, port, tls: stapled({ ca: fs.readFileSync(file, 'utf8') }), retryStrategy: null });
client.on('error', (error) => console.error(error.message));
client.ping().then(console.log, () => { process.exitCode = 1; }).finally(() => client.disconnect());
