package provider

import (
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/async"
)

// The driver's deadline may be before the mount timeout. The provider must respond
// earlier, because otherwise the client returns DeadlineExceeded.
func TestDriverDeadline(t *testing.T) {
	e := newEnv(t)
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}
	s := serve(t, e.faulty(func(_ http.ResponseWriter, r *http.Request) bool { hold(r); return true }))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := s.Mount(ctx, mountRequest(e.params(), entries))
	wantError(t, err, failure.VaultUnreachable, "no response from Vault in time")
}

// A mount that the driver cancels stops.
func TestCancel(t *testing.T) {
	e := newEnv(t)
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}
	reached, left := make(chan struct{}, 1), make(chan struct{}, 1)
	s := serve(t, e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		reached <- struct{}{}
		hold(r)
		left <- struct{}{}
		return true
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go s.Mount(ctx, mountRequest(e.params(), entries))
	<-reached
	cancel()
	<-left
}

// TestLongRequest: gRPC itself rejects a request that is too long with ResourceExhausted.
// The driver gets another code instead, and the request is not read.
func TestLongRequest(t *testing.T) {
	s := serve(t, "http://127.0.0.1:1")
	request := func(size int) *v1alpha1.MountRequest {
		in := mountRequest(plainParams(), nil)
		in.Secrets = `{"x":""}`
		in.Secrets = `{"x":"` + strings.Repeat("x", size-proto.Size(in)-3) + `"}` // 3 bytes for the length itself
		if n := proto.Size(in); n != size {
			t.Fatalf("%d bytes, want %d", n, size)
		}
		return in
	}
	_, err := s.Mount(t.Context(), request(maxRequest))
	wantError(t, err, failure.InvalidCiphertext, `entry "x" is not ciphertext`)
	for _, size := range []int{maxRequest + 1, 20 << 20} {
		_, err = s.Mount(t.Context(), request(size))
		wantError(t, err, failure.RequestTooLarge, "reading the driver's request", "more than the limit of 4 MiB")
	}
	if log := s.log.String(); strings.Count(log, `msg="mount failed"`) != 3 {
		t.Errorf("the log is not complete:\n%s", log)
	}
}

// TestLongRequestTimeout verifies that the mount timeout includes the wait until the request is
// read, so that the process does not wait longer when it stops.
func TestLongRequestTimeout(t *testing.T) {
	const timeout = 2 * time.Second
	e := newEnv(t)
	s := serve(t, e.faulty(func(_ http.ResponseWriter, r *http.Request) bool { hold(r); return true }),
		within(timeout))
	for range maxReceiving {
		s.server.receiving <- struct{}{}
	}
	time.AfterFunc(timeout*3/4, func() { <-s.server.receiving })
	began := time.Now()
	_, err := s.Mount(t.Context(), mountRequest(e.params(), e.entries(t, strings.Repeat("v", window))))
	wantError(t, err, failure.VaultUnreachable, "no response from Vault in time")
	if took := time.Since(began); took > timeout*3/2 {
		t.Errorf("took %s, with a timeout of %s", took, timeout)
	}
}

// TestStalledRequest verifies that a request that never ends is canceled, and that its
// memory is released.
func TestStalledRequest(t *testing.T) {
	s := serve(t, "http://127.0.0.1:1")
	transport := &http.Transport{Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.endpoint)
		}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body, request := io.Pipe()
	defer request.Close()
	in, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://localhost/v1alpha1.CSIDriverProvider/Mount", body)
	if err != nil {
		t.Fatal(err)
	}
	in.Header.Set("Content-Type", "application/grpc")
	in.Header.Set("Te", "trailers")
	go request.Write(append([]byte{0, 0, 0x20, 0, 0}, make([]byte, window*2)...)) // 2 MiB
	resp, err := transport.RoundTrip(in)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	code, message := resp.Header.Get("Grpc-Status")+resp.Trailer.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")+
		resp.Trailer.Get("Grpc-Message")
	if code != "13" || !strings.Contains(message, "was not complete within") {
		t.Errorf("status %s: %s", code, message)
	}
	if n := len(s.server.receiving); n != 0 {
		t.Errorf("%d turns are taken", n)
	}
	if _, err := s.Mount(t.Context(), mountRequest(plainParams("scope", "wide"), nil)); err == nil ||
		!strings.Contains(err.Error(), "scope: ") {
		t.Errorf("afterwards: %v", err)
	}
}

func newServer(t *testing.T, endpoint string) *Server {
	t.Helper()
	p := serve(t, "http://127.0.0.1:1").provider
	s, err := Listen(endpoint, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run serves until stop is called. stop returns after Serve has returned.
func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func wantVersion(t *testing.T, endpoint string) {
	t.Helper()
	if _, err := dial(t, endpoint).Version(t.Context(), &v1alpha1.VersionRequest{}); err != nil {
		t.Error(err)
	}
}

func TestTakeover(t *testing.T) {
	endpoint := filepath.Join(t.TempDir(), "p.sock")
	first := newServer(t, endpoint)
	stopFirst := run(t, first)
	wantVersion(t, endpoint)
	if !first.Ready() {
		t.Error("the first server is not ready")
	}

	second := newServer(t, endpoint)
	stopSecond := run(t, second)
	wantVersion(t, endpoint)
	if first.Ready() || !second.Ready() {
		t.Errorf("ready: first %v, second %v", first.Ready(), second.Ready())
	}

	stopFirst()
	wantVersion(t, endpoint) // still from the second
	if !second.Ready() {
		t.Error("the first process removed the second's socket")
	}
	stopSecond()
	if entries, _ := os.ReadDir(filepath.Dir(endpoint)); len(entries) > 0 {
		t.Errorf("files left in the directory: %v", entries)
	}
}

func TestListenOverLeftovers(t *testing.T) {
	dir := t.TempDir()
	endpoint := filepath.Join(dir, "p.sock")
	for _, name := range []string{endpoint, filepath.Join(dir, ".p.sock.new")} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false) // as after SIGKILL
		l.Close()
	}
	run(t, newServer(t, endpoint))
	wantVersion(t, endpoint)
	info, err := os.Stat(endpoint)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, "http://127.0.0.1:1").provider
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{file, dir, filepath.Join(dir, "nowhere", "p.sock"),
		filepath.Join(dir, strings.Repeat("x", 120))} {
		if s, err := Listen(endpoint, p); err == nil || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("%s: %v, %v", endpoint, s, err)
		}
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file was changed to %q", text)
	}
}

// Stopping finishes the mounts in progress and accepts no new ones.
func TestDrain(t *testing.T) {
	e := newEnv(t)
	reached, release := make(chan struct{}), make(chan struct{})
	address := e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		if isLogin(r) {
			close(reached)
			<-release
		}
		return false
	})
	p := serve(t, address).provider
	endpoint := filepath.Join(t.TempDir(), "p.sock")
	s, err := Listen(endpoint, p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	mounted := make(chan error, 1)
	client := dial(t, endpoint)
	go func() {
		_, err := client.Mount(context.Background(),
			mountRequest(e.params(), map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}))
		mounted <- err
	}()
	<-reached
	cancel()
	async.Wait(t, "the end of the socket", func() bool { _, err := os.Lstat(endpoint); return err != nil })
	if s.Ready() {
		t.Error("ready while it drains")
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned with a mount in progress: %v", err)
	default:
	}
	close(release)
	if err := <-mounted; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestServeAfterContextEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endpoint := filepath.Join(t.TempDir(), "p.sock")
	s := newServer(t, endpoint)
	s.grpc.Stop() // as when the context ends earlier
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(endpoint); err == nil {
		t.Error("the socket still exists")
	}
}
