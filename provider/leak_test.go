package provider

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// leakDetector finds secrets in texts, in several encodings and in part.
type leakDetector struct {
	mu    sync.Mutex
	leaks map[string]string // name by text
}

func (a *leakDetector) add(name, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaks == nil {
		a.leaks = map[string]string{}
	}
	a.leaks[text] = name
	a.leaks[hex.EncodeToString([]byte(text))] = name + " in hex"
	// Inside a longer text, base64 has three forms. The first and the last characters
	// depend on the text around it.
	for shift := range 3 {
		form := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + text))
		a.leaks[form[4:len(form)-4]] = fmt.Sprintf("%s in base64 (%d)", name, shift)
	}
	if n := len(text); n > 60 {
		a.leaks[text[n/2:n/2+24]] = "a part of " + name
	}
}

// check fails the test if a text contains one of the secrets.
func (a *leakDetector) check(t testing.TB, where, text string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for secret, name := range a.leaks {
		if strings.Contains(text, secret) {
			t.Errorf("%s leaked in %s:\n%s", name, where, text)
		}
	}
}

// TestLeakDetector checks that the detector finds each encoding of a secret.
func TestLeakDetector(t *testing.T) {
	const text = "c4nary-that-is-longer-than-anything-else-and-has-parts-1234567890"
	for name, leak := range map[string]string{
		"as it is": text, "hex": hex.EncodeToString([]byte(text)), "a part": text[20:60],
		"base64":         base64.StdEncoding.EncodeToString([]byte("x" + text)),
		"base64 of JSON": base64.StdEncoding.EncodeToString([]byte(`{"a": "` + text + `"}`)),
	} {
		var a leakDetector
		a.add("it", text)
		var found recorder
		a.check(&found, "here", "before "+leak+" after")
		if !found.failed {
			t.Errorf("%s is not detected", name)
		}
	}
}

// recorder records whether a test failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
