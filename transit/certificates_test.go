package transit

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestCertificatesAreReloaded checks that the files are read once a minute, also without
// a failure, so that a removed CA is no longer trusted. The old certificates stay while
// the new ones cannot be read.
func TestCertificatesAreReloaded(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	old, next := testenv.NewCA(t, "old"), testenv.NewCA(t, "next")
	file := filepath.Join(t.TempDir(), "ca.crt")
	replace := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace(append(old.PEM(), next.PEM()...))
	tr, err := newTransport(Config{CACert: file})
	if err != nil {
		t.Fatal(err)
	}
	now := clock.Now()
	tr.now = func() clock.Reading { return now }
	tr.read = now
	both := old.Pool()
	both.AppendCertsFromPEM(next.PEM())
	for _, step := range []struct {
		name  string
		text  []byte
		after time.Duration
		only  bool // whether only the next CA is trusted
	}{
		{"too soon", next.PEM(), certificateAge - time.Second, false},
		{"not readable", []byte("half a certificate"), certificateAge, false},
		{"changed", next.PEM(), certificateAge, true},
		{"removed", nil, certificateAge, true},
	} {
		replace(step.text)
		now = tr.read.Add(step.after)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := both
		if step.only {
			want = next.Pool()
		}
		if used := tr.current.TLSClientConfig.RootCAs; !used.Equal(want) || !tr.used.roots.Equal(want) {
			t.Errorf("%s: unexpected CAs", step.name)
		}
	}
}
