package testenv

import (
	"context"
	"crypto/rand"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Main runs a package's tests, stops every instance that is left then, and exits.
// It is the TestMain of a package that uses shared instances. Ctrl-C stops the
// instances, too.
func Main(m *testing.M) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		interrupt()
		stopAll()
		os.Exit(130)
	}()
	code := m.Run()
	stopAll()
	os.Exit(code)
}

// starting is the context in which shared instances start. It is not the context of
// the first test, whose end must not affect the other tests.
var starting, interrupt = context.WithCancel(context.Background())

var (
	sharedVault = sync.OnceValues(func() (*Vault, error) {
		return StartVault(starting, VaultOptions{})
	})
	sharedOpenBao = sync.OnceValues(func() (*Vault, error) {
		return StartVault(starting, VaultOptions{OpenBao: true})
	})
	sharedAPIServer = sync.OnceValues(func() (*APIServer, error) {
		return StartAPIServer(starting)
	})
)

// onOpenBao is whether a test is meant for OpenBao: it is, or is below, one whose
// name begins with TestOpenBao. Such a test runs others of its package once more,
// which need not know of it.
func onOpenBao(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestOpenBao") }

// SharedVault returns the Vault of this test binary, which the first call starts; in
// a test whose name begins with TestOpenBao, and below it, the OpenBao.
// Each test uses keys, roles and policies with names of its own, and neither seals
// nor restarts it. The package's TestMain must be [Main].
func SharedVault(t testing.TB) *Vault {
	t.Helper()
	shared := sharedVault
	if onOpenBao(t) {
		shared = sharedOpenBao
	}
	v, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	showLogOnFailure(t, v)
	return v
}

// SharedAPIServer returns the API server of this test binary, which the first call
// starts. Each test uses namespaces of its own and does not restart it.
// The package's TestMain must be [Main].
func SharedAPIServer(t testing.TB) *APIServer {
	t.Helper()
	s, err := sharedAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	showLogOnFailure(t, s)
	return s
}

func showLogOnFailure(t testing.TB, i instance) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(i.tail())
		}
	})
}

// UniqueName returns the prefix with a random suffix, as a name for a namespace, a
// key, a role or a policy of a test's own.
func UniqueName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }
