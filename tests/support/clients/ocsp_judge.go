// ocsp_judge.go - golang.org/x/crypto/ocsp, which Go's clients and servers judge staples with, for the table of what
// a response may use: ocsp_judge RESPONSE CERTIFICATE ISSUER. Exit status 0: good. 3: not taken, with the reason on
// standard output.
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
