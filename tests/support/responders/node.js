// node.js - OCSP responder for tests/unit/ocsp-interop.tcl: asn1.js and Node.js's own crypto and http.
//
// usage: node node.js DIR PORT (README.md in this folder describes both)
//
// http.Server of Node.js sends the body chunked to clients that speak HTTP/1.1, as no Content-Length is set here.
//
// SPDX-License-Identifier: BSD-3-Clause

'use strict'

const crypto = require('crypto')
const fs = require('fs')
const http = require('http')
const path = require('path')
const asn1 = require('asn1.js')

const dir = process.argv[2]
const read = (name) => fs.readFileSync(path.join(dir, name), 'utf8')
const OID_BASIC = [1, 3, 6, 1, 5, 5, 7, 48, 1, 1]
const REASONS = { 0: 'unspecified', 6: 'certificateHold' }

const Algorithm = asn1.define('AlgorithmIdentifier', function () {
  this.seq().obj(this.key('algorithm').objid(), this.key('parameters').optional().any())
})
const CertID = asn1.define('CertID', function () {
  this.seq().obj(this.key('hash').use(Algorithm), this.key('name').octstr(), this.key('key').octstr(),
    this.key('serial').int())
})
const Any = asn1.define('Any', function () { this.any() })
const Extensions = asn1.define('Extensions', function () { this.seqof(Any) })
const Request = asn1.define('Request', function () {
  this.seq().obj(this.key('id').use(CertID), this.key('extensions').optional().explicit(0).use(Extensions))
})
const OCSPRequest = asn1.define('OCSPRequest', function () {
  this.seq().obj(this.key('tbs').seq().obj(
    this.key('list').seqof(Request),
    this.key('extensions').optional().explicit(2).use(Extensions)))
})
const Revoked = asn1.define('RevokedInfo', function () {
  this.seq().obj(this.key('time').gentime(), this.key('reason').optional().explicit(0).enum(REASONS))
})
const Status = asn1.define('CertStatus', function () {
  this.choice({ good: this.implicit(0).null_(), revoked: this.implicit(1).use(Revoked), unknown: this.implicit(2).null_() })
})
const Single = asn1.define('SingleResponse', function () {
  this.seq().obj(this.key('id').use(CertID), this.key('status').use(Status), this.key('thisUpdate').gentime(),
    this.key('nextUpdate').optional().explicit(0).gentime())
})
const Data = asn1.define('ResponseData', function () {
  this.seq().obj(this.key('byKey').explicit(2).octstr(), this.key('producedAt').gentime(),
    this.key('responses').seqof(Single))
})
const Basic = asn1.define('BasicOCSPResponse', function () {
  this.seq().obj(this.key('data').use(Data), this.key('algorithm').use(Algorithm), this.key('signature').bitstr(),
    this.key('certs').optional().explicit(0).seqof(Any))
})
const OCSPResponse = asn1.define('OCSPResponse', function () {
  this.seq().obj(this.key('status').enum({ 0: 'successful' }), this.key('bytes').explicit(0).seq().obj(
    this.key('type').objid(), this.key('response').octstr()))
})
const PublicKey = asn1.define('SubjectPublicKeyInfo', function () {
  this.seq().obj(this.key('algorithm').use(Algorithm), this.key('key').bitstr())
})

// The CertStatus of a serial number by index.txt.
function statusOf (serial) {
  for (const line of read('index.txt').split('\n')) {
    const [flag, , revocation, number] = line.split('\t')
    if (!number || BigInt('0x' + number) !== BigInt(serial.toString())) continue
    if (flag !== 'R') return { type: 'good', value: null }
    const [time, reason] = revocation.split(',')
    const [y, mo, d, h, mi, s] = time.match(/\d\d/g).map(Number)
    const info = { time: Date.UTC(2000 + y, mo - 1, d, h, mi, s) }
    if (reason === 'holdInstruction') info.reason = 'certificateHold'
    return { type: 'revoked', value: info }
  }
  return { type: 'unknown', value: null }
}

function answer (der) {
  const request = OCSPRequest.decode(der, 'der')
  const authorized = fs.existsSync(path.join(dir, 'responder.crt'))
  const signer = new crypto.X509Certificate(read(authorized ? 'responder.crt' : 'ca.crt'))
  const key = crypto.createPrivateKey(read(authorized ? 'responder.key' : 'ca.key'))
  const now = Date.now()
  const spki = PublicKey.decode(signer.publicKey.export({ type: 'spki', format: 'der' }), 'der')
  const data = {
    byKey: crypto.createHash('sha1').update(spki.key.data).digest(),
    producedAt: now,
    responses: request.tbs.list.map(({ id }) => (
      { id, status: statusOf(id.serial), thisUpdate: now, nextUpdate: now + 4 * 3600 * 1000 }))
  }
  const rsa = key.asymmetricKeyType === 'rsa'
  const basic = {
    data,
    algorithm: { algorithm: rsa ? [1, 2, 840, 113549, 1, 1, 11] : [1, 2, 840, 10045, 4, 3, 2],
      ...(rsa && { parameters: Buffer.from([5, 0]) }) },
    signature: { unused: 0, data: crypto.sign('sha256', Data.encode(data, 'der'), key) },
    ...(authorized && { certs: [signer.raw] })
  }
  return OCSPResponse.encode({ status: 'successful',
    bytes: { type: OID_BASIC, response: Basic.encode(basic, 'der') } }, 'der')
}

const server = http.createServer((request, response) => {
  const parts = []
  request.on('data', (part) => parts.push(part)).on('end', () => {
    response.setHeader('Content-Type', 'application/ocsp-response')
    response.write(answer(Buffer.concat(parts)))
    response.end()
  })
})
server.listen(Number(process.argv[3]), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`))
process.stdin.resume().on('end', () => process.exit(0))
