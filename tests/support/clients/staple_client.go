// staple_client.go - Go's own TLS library, for the table of clients: staple_client PORT CA-FILE. Exit status 0: it
// accepted the server; then it prints how many bytes of a staple it hands out, which is all that crypto/tls does with
// one. 3: it refused, with the reason on standard output.
//
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

func main() {
	pem, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", "127.0.0.1:"+os.Args[1], &tls.Config{RootCAs: pool})
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	fmt.Println("staple of", len(conn.ConnectionState().OCSPResponse), "bytes")
	conn.Close()
}
