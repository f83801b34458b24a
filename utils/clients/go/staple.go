// staple.go - refuses TLS servers that do not staple a good OCSP response. Copy it into your module and change its
// package. Requires golang.org/x/crypto/ocsp, which verifies signatures, but not who may sign, dates and whole CertIDs.
//
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Stapled returns a copy of config that refuses servers without a good staple. With soft, a missing staple is accepted
// unless the certificate is must-staple. A response without nextUpdate is accepted until maxAge after its thisUpdate.
// Sessions are not resumed, as those carry no new staple.
func Stapled(config *tls.Config, soft bool, maxAge time.Duration) *tls.Config {
	c := config.Clone()
	c.ClientSessionCache = nil
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if config.VerifyConnection != nil {
			if err := config.VerifyConnection(state); err != nil {
				return err
			}
		}
		feature := func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.5.5.7.1.24" }
		if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) < 2 {
			return errors.New("the server's certificate has no verified issuer, so its staple cannot be verified")
		} else if len(state.OCSPResponse) > 0 {
			return Verify(state.OCSPResponse, state.VerifiedChains[0][0], state.VerifiedChains[0][1], maxAge)
		} else if !soft || slices.ContainsFunc(state.PeerCertificates[0].Extensions, feature) {
			return errors.New("the server sent no OCSP staple")
		}
		return nil
	}
	return c
}

// Verify returns nil if the DER of a staple is a valid, good response for the certificate leaf of issuer.
func Verify(staple []byte, leaf, issuer *x509.Certificate, maxAge time.Duration) error {
	response, err := ocsp.ParseResponseForCert(staple, leaf, issuer)
	if err != nil {
		return err
	}
	from, to := time.Now().Add(5*time.Minute), time.Now().Add(-5*time.Minute)
	if d := response.Certificate; d != nil && !d.Equal(issuer) && (d.NotBefore.After(from) || d.NotAfter.Before(to) ||
		!bytes.Equal(d.RawIssuer, issuer.RawSubject) || !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning)) {
		return errors.New("the staple is not signed by the issuer or its authorized responder")
	}
	var data struct { // ResponseData of RFC 6960 section 4.2.1
		Version    int `asn1:"optional,default:0,explicit,tag:0"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []struct {
			ID struct {
				Algorithm, Name, Key asn1.RawValue
				Serial               *big.Int
			}
			Status     asn1.RawValue    // tag 0: good, 1: revoked, 2: unknown
			ThisUpdate time.Time        `asn1:"generalized"`
			NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
			Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
		}
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	var key struct{ Algorithm, Bits asn1.RawValue }      // a byte of unused bits is before the key
	asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key) // no error: x509 has parsed it
	if _, err = asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return err
	}
	err = errors.New("the staple has no current status for this certificate")
	for _, r := range data.Responses {
		digest := map[int]crypto.Hash{20: crypto.SHA1, 32: crypto.SHA256, 48: crypto.SHA384}[len(r.ID.Name.Bytes)]
		same := func(sum, data []byte) bool { h := digest.New(); h.Write(data); return bytes.Equal(sum, h.Sum(nil)) }
		if r.NextUpdate.IsZero() {
			r.NextUpdate = r.ThisUpdate.Add(maxAge)
		}
		if digest == 0 || r.ID.Serial.Cmp(leaf.SerialNumber) != 0 ||
			!same(r.ID.Name.Bytes, leaf.RawIssuer) || !same(r.ID.Key.Bytes, key.Bits.Bytes[1:]) ||
			r.ThisUpdate.After(from) || r.NextUpdate.Before(to) {
			continue
		} else if r.Status.Tag != 0 {
			return errors.New("the certificate is revoked or unknown to its issuer")
		}
		err = nil
	}
	return err
}
