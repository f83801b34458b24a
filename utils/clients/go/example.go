// example.go - connects to Valkey and requires a good staple:  go run staple.go example.go HOST:PORT CA-FILE
//
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/gomodule/redigo/redis"
)

func main() {
	pem, _ := os.ReadFile(os.Args[2])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := Stapled(&tls.Config{RootCAs: roots}, len(os.Args) > 3 && os.Args[3] == "soft", 15*time.Minute)
	client, err := redis.Dial("tcp", os.Args[1], redis.DialUseTLS(true), redis.DialTLSConfig(config))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Do("PING"))
}
