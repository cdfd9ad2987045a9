package provider

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/auditlog"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/transit"
)

// gate is a stream whose writes block until it is opened.
type gate struct {
	open    chan struct{}
	entered chan struct{} // receives a value when a write blocks
	async.Buffer
}

func newGate() *gate { return &gate{open: make(chan struct{}), entered: make(chan struct{}, 1)} }

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	return g.Buffer.Write(p)
}

// TestBlockedAuditLog verifies that mounts continue while the stream blocks, that memory is
// bounded and lost records are counted, and that the rest is written when the stream continues.
func TestBlockedAuditLog(t *testing.T) {
	e := newEnv(t)
	g := newGate()
	s := serve(t, e.Vault.Address, func(c *Config) { c.Audit = g })
	request := mountRequest(e.params(), map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "1")})
	for range 20 {
		if _, err := s.Mount(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	<-g.entered
	audit := s.provider.audit
	line := append(bytes.Repeat([]byte{'x'}, 64<<10), '\n')
	for range 2 * auditlog.MaxQueue / len(line) {
		audit.Write(line)
	}
	written, lost := series(t, s.provider)[`audit_records_total{result=written}`], series(t,
		s.provider)[`audit_records_total{result=lost}`]
	if written != 0 || lost == 0 {
		t.Errorf("%v written, %v lost", written, lost)
	}
	if _, err := s.Mount(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	audit.Flush(t.Context())
	text, _, _ := strings.Cut(g.String(), "xxx")
	if n := len(parseRecords(t, text)); n != 20 {
		t.Errorf("%d records of 20", n)
	}
	if n := strings.Count(g.String(), "\n"); float64(n) != series(t, s.provider)[`audit_records_total{result=written}`] {
		t.Errorf("%d lines are not what is counted", n)
	}
	async.Wait(t, "the log", func() bool { return strings.Contains(s.log.String(), "audit records lost") })
}

// TestAuditLogFlush verifies that the server waits for the last records before it exits, but
// only briefly if the stream blocks.
func TestAuditLogFlush(t *testing.T) {
	g, log := newGate(), &async.Buffer{}
	p, err := New(Config{
		Vault: transit.Config{Address: "http://127.0.0.1:1"}, VersionKey: make([]byte, versionKeySize),
		Audit: g, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(filepath.Join(t.TempDir(), "p.sock"), p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Mount(t.Context(), mountRequest(nil, nil)); err == nil {
		t.Fatal("no error")
	}
	<-g.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the last audit records were not written") {
		t.Errorf("the log:\n%s", log)
	}
	close(g.open)
	p.audit.Flush(t.Context())
	if n := len(parseRecords(t, g.String())); n != 1 {
		t.Errorf("%d records", n)
	}
}
