// staple_client.go - a client with Go's TLS library, for the table of clients.
//
// usage: staple_client PORT CA-FILE
// Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output. On success it prints
// the size of the staple: crypto/tls does not verify a staple, but only returns it to the application.
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
