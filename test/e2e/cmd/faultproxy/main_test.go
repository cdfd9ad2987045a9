package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestModes checks each mode, and that held requests continue in mode pass.
func TestModes(t *testing.T) {
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}))
	defer vault.Close()
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run("127.0.0.1:0", vault.URL, in, out) }()
	lines := bufio.NewScanner(stdout)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no line came: %v", lines.Err())
		}
		return lines.Text()
	}
	address := next()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func() (int, string, string) {
		resp, err := client.Post(address+"/v1/x", "text/plain", strings.NewReader("body"))
		if err != nil {
			return 0, err.Error(), ""
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text), resp.Header.Get("Retry-After")
	}
	set := func(mode string) {
		t.Helper()
		fmt.Fprintln(stdin, mode)
		if got := next(); got != "mode "+mode {
			t.Fatalf("the response to %s is %q", mode, got)
		}
	}
	for _, test := range []struct {
		mode   string
		status int
		text   string
		after  string
	}{
		{"busy", 429, "rate limit", ""},
		{"busy 7", 429, "rate limit", "7"},
		{"refuse", 0, "refused", ""},
		{"pass", 200, "/v1/x body", ""},
	} {
		set(test.mode)
		done := make(chan string, 1)
		go func() {
			status, text, after := post()
			if status != test.status || !strings.Contains(text, test.text) || after != test.after {
				t.Errorf("%s: %d %q %q", test.mode, status, text, after)
			}
			done <- text
		}()
		if test.status != 0 {
			if got := next(); got != "request "+test.mode+" /v1/x" {
				t.Errorf("it said %q", got)
			}
		}
		<-done
	}

	set("hold")
	held := make(chan string, 1)
	go func() { _, text, _ := post(); held <- text }()
	if got := next(); got != "request hold /v1/x" {
		t.Errorf("it said %q", got)
	}
	fmt.Fprintln(stdin, "pass")
	said := []string{next(), next()} // the mode and the request, in either order
	if text := strings.Join(said, "\n"); !strings.Contains(text, "mode pass") ||
		!strings.Contains(text, "request pass /v1/x") {
		t.Errorf("it said %q", text)
	}
	if text := <-held; text != "/v1/x body" {
		t.Errorf("what was held got %q", text)
	}

	stdin.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
