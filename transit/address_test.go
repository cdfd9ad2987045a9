package transit

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestPlainHTTP(t *testing.T) {
	for address, want := range map[string]bool{
		"http://vault.vault.svc:8200":      true,
		"HTTP://Vault:8200":                true,
		" http://vault:8200":               true,
		"http://10.0.0.1":                  true,
		"http://0.0.0.0:8200":              true, // not the loopback interface
		"http://[::]:8200":                 true,
		"http://[fd00::1]:8200":            true,
		"http://128.0.0.1:8200":            true,
		"http://127.1:8200":                true, // a name for package net
		"http://127.0.0.1.nip.io":          true, // its name server determines the address
		"http://localhost.example":         true,
		"http://vault.localhost:8200":      true,
		"http://localhost@vault":           true,
		"https://vault:8200":               false,
		"http://127.0.0.1:8200":            false,
		"http://127.255.255.254":           false,
		"http://[::1]:8200":                false,
		"http://[::ffff:127.0.0.1]:8200":   false,
		"http://localhost:8200/some/where": false,
		"http://LOCALHOST.":                false,
	} {
		if got := PlainHTTP(address); got != want {
			t.Errorf("PlainHTTP(%q) = %v, want %v", address, got, want)
		}
		for _, accepted := range []bool{false, true} {
			_, err := NewClient(Config{Address: strings.TrimSpace(address), InsecureHTTP: accepted})
			if refused := want && !accepted; errors.Is(err, ErrPlainHTTP) != refused || !refused && err != nil {
				t.Errorf("%q, accepted %v: %v", address, accepted, err)
			}
		}
	}
}

func TestInsecureHTTPFromEnvironment(t *testing.T) {
	for text, want := range map[string]bool{"": false, "false": false, "0": false, "true": true, "1": true} {
		getenv := func(name string) string { return map[string]string{EnvInsecureHTTP: text}[name] }
		if got := FromEnvironment(getenv).InsecureHTTP; got != want {
			t.Errorf("%s=%s: %v, want %v", EnvInsecureHTTP, text, got, want)
		}
	}
}

// TestRefusePlainHTTP checks which requests are sent.
func TestRefusePlainHTTP(t *testing.T) {
	for address, want := range map[string]int{"http://vault:8200/v1/x": 0, "https://vault:8200/v1/x": 1,
		"http://127.0.0.1:8200/v1/x": 1} {
		sent := 0
		transport := RefusePlainHTTP(roundTripFunc(func(*http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := transport.RoundTrip(request); sent != want || errors.Is(err, ErrPlainHTTP) != (want == 0) {
			t.Errorf("%s: sent %d times, %v", address, sent, err)
		}
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
