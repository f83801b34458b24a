// ocsp_judge.go - verifies a response with golang.org/x/crypto/ocsp, which Go's clients and servers use for staples,
// for the table of the features that a response may use.
//
// usage: ocsp_judge RESPONSE CERTIFICATE ISSUER
// Exit status 0: good, 3: not accepted, with the reason on standard output.
//
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"golang.org/x/crypto/ocsp"
)

func read(path string) []byte {
	bytes, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return bytes
}

func certificate(path string) *x509.Certificate {
	block, _ := pem.Decode(read(path))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err)
	}
	return cert
}

func main() {
	response, err := ocsp.ParseResponseForCert(read(os.Args[1]), certificate(os.Args[2]), certificate(os.Args[3]))
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	if response.Status != ocsp.Good {
		fmt.Println("status", response.Status)
		os.Exit(3)
	}
}
