// Resolves and asks with Go's own resolver: a static program, past every library.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	host := os.Args[1]
	addresses, err := net.LookupHost(host)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(len(addresses), "addresses")
	_, missing := net.LookupHost("missing.default.svc.cluster.local.")
	fmt.Println("missing:", missing.(*net.DNSError).IsNotFound)
	for _, network := range []string{"tcp4", "tcp6"} {
		connection, err := net.Dial(network, host+":8080")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(network, net.JoinHostPort(connection.RemoteAddr().(*net.TCPAddr).IP.String(), "8080") == connection.RemoteAddr().String())
		connection.Close()
	}
	answer, err := http.Get("http://" + host + ":8080/env/NAME")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
}
