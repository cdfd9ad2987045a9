// Command faultproxy is a proxy between a provider and Vault with faults that a test
// chooses. It runs on the node, where pods can always reach it.
//
//	faultproxy --listen 172.18.0.2:0 --to http://172.18.0.2:30820
//
// The first line on its standard output is its URL. Each line on its standard input is a
// mode. When the mode is set, it prints the line "mode MODE":
//
//	pass        requests are sent to Vault, also those that were held
//	refuse      connections are refused
//	hold        requests get no response
//	busy        requests get a 429
//	busy 3600   the same, with a Retry-After of that many seconds
//
// For each request it prints the line "request MODE PATH". It begins in mode pass, and
// ends when its standard input is closed, also if the test is killed.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/secretmanager-io/secretmanager/test/relay"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on; port 0 picks a free one")
	to := flag.String("to", "", "`URL` of Vault")
	flag.Parse()
	if err := run(*listen, *to, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faultproxy:", err)
		os.Exit(1)
	}
}

func run(address, to string, in io.Reader, out io.Writer) error {
	vault, err := relay.New(to, nil)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	p := &proxy{out: out, mode: "pass", changed: make(chan struct{}), vault: vault}
	if err := p.listen(address); err != nil {
		return err
	}
	defer p.close()
	p.log("http://%s", p.address)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := p.set(lines.Text()); err != nil {
			return err
		}
		p.log("mode %s", lines.Text())
	}
	return lines.Err()
}

type proxy struct {
	vault   http.Handler
	address string       // empty until it is known
	server  *http.Server // nil while connections are refused

	outMu sync.Mutex
	out   io.Writer

	mu      sync.Mutex
	mode    string
	changed chan struct{} // closed when the mode changes
}

func (p *proxy) log(format string, a ...any) {
	p.outMu.Lock()
	defer p.outMu.Unlock()
	fmt.Fprintf(p.out, format+"\n", a...)
}

func (p *proxy) listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	p.address = l.Addr().String()
	p.server = &http.Server{Handler: p}
	go p.server.Serve(l)
	return nil
}

func (p *proxy) close() {
	if p.server != nil {
		p.server.Close()
		p.server = nil
	}
}

func (p *proxy) set(mode string) error {
	name, _, _ := strings.Cut(mode, " ")
	switch name {
	case "pass", "hold", "busy", "refuse":
	default:
		return fmt.Errorf("%q is not a mode", mode)
	}
	p.mu.Lock()
	p.mode = mode
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if name == "refuse" {
		p.close()
		return nil
	}
	if p.server == nil {
		return p.listen(p.address)
	}
	return nil
}

func (p *proxy) current() (mode string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.changed
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// While the body is unread, the server does not notice that the client has disconnected.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	for {
		mode, changed := p.current()
		p.log("request %s %s", mode, r.URL.Path)
		name, seconds, _ := strings.Cut(mode, " ")
		switch name {
		case "pass":
			p.vault.ServeHTTP(w, r)
			return
		case "busy":
			if seconds != "" {
				w.Header().Set("Retry-After", seconds)
			}
			http.Error(w, `{"errors":["request path is over its rate limit"]}`, http.StatusTooManyRequests)
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
