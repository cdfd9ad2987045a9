package testenv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// startTimeout bounds the start of a program. It is long, for machines that are busy with
// builds.
const startTimeout = 2 * time.Minute

// VaultOptions are the options of a Vault. The zero value is valid.
type VaultOptions struct {
	// OpenBao starts an OpenBao instead, which differs in a few points
	// (docs/compatibility.md).
	OpenBao bool
	// Mounts are enabled before the Vault serves, each as PATH or PATH=TYPE.
	// Default: mounts/transit, auth/kubernetes and auth/jwt.
	Mounts []string
	// TLS makes the Vault serve HTTPS with a certificate of its own CA, which is in
	// [Vault.CAFile]. Default: plain HTTP.
	TLS bool
	// Listen is the host:port to listen on. Default: 127.0.0.1:0, a free port.
	Listen string
	// LogLevel is trace, debug, info, warn or error. Default: warn.
	LogLevel string
}

// A Vault is a running Vault server, initialized and unsealed. Its methods are safe for
// concurrent use.
type Vault struct {
	// Address is the URL of the server. [Vault.Restart] keeps it.
	Address string
	// RootToken is the root token.
	RootToken string
	// CAFile is the file with the CA of the serving certificate; empty without
	// [VaultOptions.TLS].
	CAFile string

	options   VaultOptions
	flags     []string // in addition
	program   string
	dir       string
	unsealKey string
	client    *http.Client

	mu      sync.Mutex // guards process, and serializes Stop and Restart
	process *process
	stopped bool
}

// NewVault starts a Vault with the default options that ends with the test.
func NewVault(t testing.TB) *Vault {
	t.Helper()
	return NewVaultWith(t, VaultOptions{})
}

// NewVaultWith starts a Vault that ends with the test.
func NewVaultWith(t testing.TB, options VaultOptions) *Vault {
	t.Helper()
	options.OpenBao = options.OpenBao || onOpenBao(t)
	v, err := StartVault(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	showLogOnFailure(t, v)
	return v
}

// StartVault starts a Vault, builds it first if needed, and returns when it serves. ctx
// applies only to the start: the Vault runs until [Vault.Stop], or until this process
// ends.
func StartVault(ctx context.Context, options VaultOptions) (*Vault, error) {
	return startVault(ctx, options)
}

// startVault is StartVault with flags of the program in addition.
func startVault(ctx context.Context, options VaultOptions, flags ...string) (*Vault, error) {
	name := "vault"
	if options.OpenBao {
		name = "openbao"
	}
	program, err := programs.Path(ctx, name)
	if err != nil {
		return nil, err
	}
	if options.Mounts == nil {
		options.Mounts = []string{"mounts/transit", "auth/kubernetes", "auth/jwt"}
	}
	dir, err := os.MkdirTemp("", "vault-")
	if err != nil {
		return nil, fmt.Errorf("starting Vault: %w", err)
	}
	v := &Vault{RootToken: "root", options: options, flags: flags, program: program, dir: dir}
	if err := v.prepare(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("starting Vault: %w", err)
	}
	if options.Listen == "" {
		options.Listen = "127.0.0.1:0"
	}
	if err := v.start(ctx, options.Listen); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	register(v)
	return v, nil
}

// prepare creates the HTTP client and the certificate.
func (v *Vault) prepare() error {
	// A keep-alive connection would be broken after a Restart.
	transport := &http.Transport{DisableKeepAlives: true}
	v.client = &http.Client{Transport: transport, Timeout: time.Minute}
	if !v.options.TLS {
		return nil
	}
	ca, err := newAuthority("vault-test-ca")
	if err != nil {
		return err
	}
	if err := ca.writeServing(v.certFile(), v.keyFile(), "vault"); err != nil {
		return err
	}
	v.CAFile = filepath.Join(v.dir, "ca.crt")
	if err := os.WriteFile(v.CAFile, ca.pem(), 0o644); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return nil
}

func (v *Vault) certFile() string { return filepath.Join(v.dir, "tls.crt") }
func (v *Vault) keyFile() string  { return filepath.Join(v.dir, "tls.key") }

// start runs the program and waits until it prints that it serves. The caller holds v.mu,
// unless v is not shared yet.
func (v *Vault) start(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	arguments := []string{
		"--address=" + listen, "--root-token=" + v.RootToken, "--stop-with-stdin",
		"--storage=" + filepath.Join(v.dir, "storage"),
	}
	arguments = append(arguments, v.flags...)
	for _, mount := range v.options.Mounts {
		arguments = append(arguments, "--mount="+mount)
	}
	if v.options.LogLevel != "" {
		arguments = append(arguments, "--log-level="+v.options.LogLevel)
	}
	if v.options.TLS {
		arguments = append(arguments, "--tls-cert="+v.certFile(), "--tls-key="+v.keyFile())
	}
	output := newFirstLine()
	p, err := startProcess(v.dir, "vault", v.program, arguments, output, true)
	if err != nil {
		return err
	}
	var line string
	select {
	case line = <-output.line:
	case <-p.exited:
		return p.failure()
	case <-ctx.Done():
		p.stop()
		return fmt.Errorf("waiting for Vault to serve: %w\n%s", context.Cause(ctx), p.tail())
	}
	var ready struct{ Address, UnsealKey string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		p.stop()
		return fmt.Errorf("reading the ready line of Vault (%q): %w", line, err)
	}
	v.Address, v.unsealKey, v.process = ready.Address, ready.UnsealKey, p
	return nil
}

// Stop ends the Vault and removes its data. Further calls do nothing.
func (v *Vault) Stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		return
	}
	v.stopped = true
	v.process.stop()
	os.RemoveAll(v.dir)
	unregister(v)
}

// Kill ends the Vault at once, as a machine that fails does. [Vault.Restart] starts it again.
func (v *Vault) Kill() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.process.kill()
}

// running reports whether the Vault has not ended.
func (v *Vault) running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process.running()
}

// Restart ends the Vault and starts it again at the same address with the same data,
// unsealed, like a restart with auto-unseal. ctx applies only to the start.
func (v *Vault) Restart(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		return errors.New("restarting Vault: it has been stopped")
	}
	address, err := url.Parse(v.Address)
	if err != nil {
		return fmt.Errorf("restarting Vault: %w", err)
	}
	v.process.stop()
	return v.start(ctx, address.Host)
}

// Seal seals the Vault: it responds to every request with 503 until [Vault.Unseal].
func (v *Vault) Seal(ctx context.Context) error {
	_, err := v.Write(ctx, "sys/seal", nil)
	return err
}

// Unseal unseals the Vault. It serves when Unseal returns.
func (v *Vault) Unseal(ctx context.Context) error {
	_, err := v.Write(ctx, "sys/unseal", map[string]any{"key": v.unsealKey})
	return err
}

func (v *Vault) tail() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process.tail()
}
