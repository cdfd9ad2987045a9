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

// Main runs a package's tests, stops all running instances, and exits. It is the TestMain
// of a package that uses shared instances. Ctrl-C also stops the instances.
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

// onOpenBao reports whether a test runs on OpenBao: its name, or that of a parent, begins
// with TestOpenBao. Such a test repeats other tests of its package.
func onOpenBao(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestOpenBao") }

// SharedVault returns the Vault of this test binary, which the first call starts. In tests
// whose names begin with TestOpenBao, and their subtests, it returns an OpenBao. Each test
// must use its own names for keys, roles and policies, and neither seal nor restart it. The
// package's TestMain must be [Main].
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
// starts. Each test must use its own namespaces, and not restart it.
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

// UniqueName returns the prefix with a random suffix, as the name of a namespace, a key, a
// role or a policy of one test.
func UniqueName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }
