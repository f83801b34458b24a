// go.go - OCSP responder for tests/unit/ocsp-interop.tcl: Go's golang.org/x/crypto/ocsp behind net/http.
//
// usage: go run go.go DIR PORT (README.md in this folder describes both)
//
// The library rounds producedAt down to the minute.
//
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

var dir string

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// The bytes of the first PEM block of a file in DIR.
func read(name string) []byte {
	text, err := os.ReadFile(filepath.Join(dir, name))
	check(err)
	block, _ := pem.Decode(text)
	return block.Bytes
}

func certificate(name string) *x509.Certificate {
	cert, err := x509.ParseCertificate(read(name))
	check(err)
	return cert
}

func key(name string) crypto.Signer {
	der := read(name)
	if parsed, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return parsed.(crypto.Signer)
	}
	if parsed, err := x509.ParseECPrivateKey(der); err == nil {
		return parsed
	}
	parsed, err := x509.ParsePKCS1PrivateKey(der)
	check(err)
	return parsed
}

// Sets the status that index.txt has for the serial number.
func setStatus(template *ocsp.Response) {
	text, err := os.ReadFile(filepath.Join(dir, "index.txt"))
	check(err)
	template.Status = ocsp.Unknown
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) < 4 {
			continue
		}
		number, _ := new(big.Int).SetString(fields[3], 16)
		if number.Cmp(template.SerialNumber) != 0 {
			continue
		}
		template.Status = ocsp.Good
		if fields[0] == "R" {
			parts := strings.Split(fields[2], ",")
			template.Status = ocsp.Revoked
			template.RevokedAt, err = time.Parse("060102150405Z", parts[0])
			check(err)
			if len(parts) > 1 && parts[1] == "holdInstruction" {
				template.RevocationReason = ocsp.CertificateHold
			}
		}
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	der, err := io.ReadAll(r.Body)
	check(err)
	request, err := ocsp.ParseRequest(der)
	check(err)
	issuer := certificate("ca.crt")
	signer, signerKey := issuer, "ca.key"
	now := time.Now()
	template := ocsp.Response{SerialNumber: request.SerialNumber, IssuerHash: request.HashAlgorithm,
		ThisUpdate: now, NextUpdate: now.Add(4 * time.Hour)}
	setStatus(&template)
	if exists("responder.crt") {
		signer, signerKey = certificate("responder.crt"), "responder.key"
		template.Certificate = signer
	}
	body, err := ocsp.CreateResponse(issuer, signer, template, key(signerKey))
	check(err)
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Write(body)
}

func main() {
	dir = os.Args[1]
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	check(err)
	go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	fmt.Printf("http://%s/\n", listener.Addr())
	check(http.Serve(listener, http.HandlerFunc(serve)))
}
