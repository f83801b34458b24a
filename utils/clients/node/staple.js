// staple.js - TLS options for Node.js that refuse servers without a good OCSP staple.
//
//   const { stapled } = require('./staple');
//   new Redis({ host, port, tls: stapled({ ca }) });                                 // ioredis, iovalkey
//   createClient({ socket: { host, port, tls: true, ...stapled({ ca }) } });         // redis (node-redis)
//
// Requires pkijs (npm), and the CA's certificates in `ca`, in PEM. Further options are those of tls.connect,
// and: policy: 'require' (default) or 'soft', which accepts a missing staple unless the certificate is must-staple;
// maxAge: how many seconds a response without nextUpdate is accepted after thisUpdate (default 900).
//
// Node.js gives the staple to the owner of the TLS socket only, and Redis clients hand their sockets out too late. So
// this file wraps tls.connect. Calls without options of stapled() are passed on as they are; options that reach another
// tls.connect fail every connection. Sessions are not resumed, as those carry no staple.
//
// SPDX-License-Identifier: BSD-3-Clause
'use strict';
const crypto = require('node:crypto');
const tls = require('node:tls');
const pkijs = require('pkijs');

const SKEW = 300e3;
const OCSP_SIGNING = '1.3.6.1.5.5.7.3.9';
const EC = '1.2.840.10045.4.';
const RSA = '1.2.840.113549.1.1.';
const SIGNATURES = { [EC + '1']: 'sha1', [EC + '3.2']: 'sha256', [EC + '3.3']: 'sha384', [EC + '3.4']: 'sha512',
    [RSA + '5']: 'sha1', [RSA + '11']: 'sha256', [RSA + '12']: 'sha384', [RSA + '13']: 'sha512', '1.3.101.112': null };
const DIGESTS = { '1.3.14.3.2.26': 'sha1', '2.16.840.1.101.3.4.2.1': 'sha256', '2.16.840.1.101.3.4.2.2': 'sha384',
    '2.16.840.1.101.3.4.2.3': 'sha512' };

const bytes = (value) => Buffer.from(value.valueBlock.valueHexView);
const parse = (raw) => pkijs.Certificate.fromBER(raw);
const issued = (cert, issuer) => cert.checkIssued(issuer) && cert.verify(issuer.publicKey);

// Returns the issuer of `cert`: an anchor, or a CA certificate in `sent` that chains to one. What the peer sends alone
// proves nothing.
function issuerOf(cert, anchors, sent, depth = 0) {
    return anchors.find((ca) => issued(cert, ca)) || (depth < 8 && sent.find((ca) => ca.ca && issued(cert, ca) &&
        issuerOf(ca, anchors, sent, depth + 1)));
}

// Throws unless the DER of `staple` is a valid, good response for `cert` (X509Certificate) of `issuer`.
function verify(staple, cert, issuer, maxAge = 900, now = Date.now()) {
    const response = pkijs.OCSPResponse.fromBER(staple);
    if (!response.responseBytes) throw new Error('the staple is an error of the OCSP responder');
    const basic = pkijs.BasicOCSPResponse.fromBER(bytes(response.responseBytes.response));
    const delegates = (basic.certs || []).map((c) => new crypto.X509Certificate(Buffer.from(c.toSchema().toBER())))
        .filter((c) => c.keyUsage?.includes(OCSP_SIGNING) && issued(c, issuer) &&
            Date.parse(c.validFrom) - SKEW <= now && now <= Date.parse(c.validTo) + SKEW);
    const digest = SIGNATURES[basic.signatureAlgorithm.algorithmId];
    const signed = (signer) => crypto.verify(digest, basic.tbsResponseData.tbsView, signer.publicKey,
        bytes(basic.signature));
    if (digest === undefined || ![issuer, ...delegates].some(signed)) {
        throw new Error('the staple is not signed by the issuer or its authorized responder');
    }
    const name = Buffer.from(parse(cert.raw).issuer.toSchema().toBER());
    const key = bytes(parse(issuer.raw).subjectPublicKeyInfo.subjectPublicKey);
    const hash = (id, data) => crypto.createHash(DIGESTS[id.hashAlgorithm.algorithmId]).update(data).digest();
    const current = basic.tbsResponseData.responses.filter(({ certID: id, thisUpdate, nextUpdate }) =>
        DIGESTS[id.hashAlgorithm.algorithmId] && bytes(id.serialNumber).equals(bytes(parse(cert.raw).serialNumber)) &&
        bytes(id.issuerNameHash).equals(hash(id, name)) && bytes(id.issuerKeyHash).equals(hash(id, key)) &&
        thisUpdate - SKEW <= now && now <= (nextUpdate ? +nextUpdate : +thisUpdate + maxAge * 1e3) + SKEW);
    if (!current.length) throw new Error('the staple has no current status for this certificate');
    // The CHOICE of a status has the tags 0: good, 1: revoked, 2: unknown.
    if (current.some((r) => r.certStatus.idBlock.tagNumber !== 0)) {
        throw new Error('the certificate is revoked or unknown to its issuer');
    }
}

function stapled({ ca, policy = 'require', maxAge, checkServerIdentity = tls.checkServerIdentity, ...options }) {
    const pems = [ca].flat().join('\n').match(/-----BEGIN CERT[^]+?-----END CERT[^\n]+/g);
    const anchors = pems.map((pem) => new crypto.X509Certificate(pem));
    const refuse = () => new Error('staple.js: these options were not passed to the tls.connect of staple.js');
    refuse.check = (host, cert, staple) => {
        const sent = [];
        for (let c = cert; c && !sent.some((s) => s.raw.equals(c.raw)); c = c.issuerCertificate) {
            sent.push(new crypto.X509Certificate(c.raw));
        }
        try {
            const mustStaple = parse(cert.raw).extensions?.some((e) => e.extnID === '1.3.6.1.5.5.7.1.24');
            if (staple) verify(staple, sent[0], issuerOf(sent[0], anchors, sent), maxAge);
            else if (mustStaple || policy !== 'soft') throw new Error('the server sent no OCSP staple');
        } catch (error) { return error; }
        return checkServerIdentity(host, cert);
    };
    return { ...options, ca, requestOCSP: true, session: undefined, checkServerIdentity: refuse };
}

const connect = tls.connect;
tls.connect = function (...args) {
    const at = args.findIndex((arg) => arg?.checkServerIdentity?.check);
    if (at < 0) return connect.apply(this, args);
    let staple;
    const { check } = args[at].checkServerIdentity;
    args[at] = { ...args[at], checkServerIdentity: (host, cert) => check(host, cert, staple) };
    return connect.apply(this, args).once('OCSPResponse', (der) => { staple = der; });
};

module.exports = { stapled, verify };
