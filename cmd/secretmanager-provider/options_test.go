package main

import (
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/transit"
)

func getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestParse(t *testing.T) {
	defaults := func(change func(*serveOptions)) *serveOptions {
		o := &serveOptions{
			endpoint: "/var/run/secrets-store-csi-providers/secretmanager.sock",
			vault:    options.Vault{Config: transit.Config{Address: "https://v:8200"}, AuthMount: "kubernetes"},
			audience: "vault", mountTimeout: 25 * time.Second, republishCache: 64 << 20,
			versionKeyFile: "/var/lib/secretmanager/version-key", log: options.Log{Level: "info", Format: "text"},
			auditLog: "stdout",
		}
		change(o)
		return o
	}
	tests := []struct {
		name string
		args string
		env  map[string]string
		want *serveOptions
	}{
		{"defaults", "--vault-addr=https://v:8200", nil, defaults(func(*serveOptions) {})},
		{"environment", "", map[string]string{
			"VAULT_ADDR": "https://v:8200", "VAULT_NAMESPACE": "team", "VAULT_CACERT": "ca",
			"VAULT_CLIENT_CERT": "cert", "VAULT_CLIENT_KEY": "key",
			"VAULT_TLS_SERVER_NAME": "name", "VAULT_TOKEN": "not used", "VAULT_SKIP_VERIFY": "1", "NODE_NAME": "node-0",
		}, defaults(func(o *serveOptions) {
			o.node = "node-0"
			o.vault.Namespace = "team"
			o.vault.Config = transit.Config{Address: "https://v:8200", CACert: "ca", ClientCert: "cert",
				ClientKey: "key", TLSServerName: "name", Insecure: true}
		})},
		{"flags before environment",
			"--vault-addr https://v:8200 --vault-namespace a --vault-ca-cert b --vault-client-cert c " +
				"--vault-client-key d --vault-tls-server-name e",
			map[string]string{"VAULT_ADDR": "https://w", "VAULT_NAMESPACE": "w", "VAULT_CACERT": "w",
				"VAULT_CLIENT_CERT": "w", "VAULT_CLIENT_KEY": "w", "VAULT_TLS_SERVER_NAME": "w"},
			defaults(func(o *serveOptions) {
				o.vault.Namespace = "a"
				o.vault.Config = transit.Config{Address: "https://v:8200", CACert: "b", ClientCert: "c", ClientKey: "d",
					TLSServerName: "e"}
			})},
		{"all the others",
			"--vault-addr https://v:8200 --endpoint /s --vault-allowed-addresses https://a:1,,https://b " +
				"--vault-auth-mount /x/y/ --audience= " +
				"--vault-allowed-auth-mounts jwt,/k/v/ --vault-inline-auth k/v/,,/x/y --vault-allowed-namespaces team/a,b " +
				"--mount-timeout 1m --version-key-file k --health-addr :8080 --kubeconfig kc --log-level debug " +
				"--log-format json --republish-cache-bytes 1Mi " +
				"--metrics-addr :9090 --pprof-addr [::1]:6060 --node-name node-1.example --audit-log /var/log/audit",
			map[string]string{"NODE_NAME": "w"},
			defaults(func(o *serveOptions) {
				o.endpoint, o.allowed, o.vault.AuthMount, o.audience, o.mountTimeout = "/s", []string{"https://a:1",
					"https://b"}, "x/y", "", time.Minute
				o.authMounts, o.namespaces = []string{"jwt", "k/v"}, []string{"team/a", "b"}
				o.inlineAuth = []string{"k/v", "x/y"}
				o.versionKeyFile, o.healthAddr, o.kubeconfig, o.log = "k", ":8080", "kc", options.Log{Level: "debug",
					Format: "json"}
				o.node, o.auditLog = "node-1.example", "/var/log/audit"
				o.republishCache, o.metricsAddr, o.pprofAddr = 1<<20, ":9090", "[::1]:6060"
			})},
		{"a cluster", "--vault-addr=https://a,https://b --vault-addr=https://c", map[string]string{"VAULT_ADDR": "https://z"},
			defaults(func(o *serveOptions) { o.vault.Config = transit.Config{Address: "https://a,https://b,https://c"} })},
		{"a cluster by environment", "", map[string]string{"VAULT_ADDR": "https://a,https://b"},
			defaults(func(o *serveOptions) { o.vault.Config = transit.Config{Address: "https://a,https://b"} })},
		{"plain HTTP by flag", "--vault-addr=http://v --vault-allowed-addresses=http://w --vault-insecure-http", nil,
			defaults(func(o *serveOptions) {
				o.vault.Config, o.allowed = transit.Config{Address: "http://v", InsecureHTTP: true}, []string{"http://w"}
			})},
		{"plain HTTP by environment",
			"", map[string]string{"VAULT_ADDR": "http://v", "SECRETMANAGER_VAULT_INSECURE_HTTP": "true"},
			defaults(func(o *serveOptions) {
				o.vault.Config = transit.Config{Address: "http://v", InsecureHTTP: true}
			})},
		{"plain HTTP on the loopback interface", "--vault-addr=http://127.0.0.1:8200", nil, defaults(func(o *serveOptions) {
			o.vault.Config = transit.Config{Address: "http://127.0.0.1:8200"}
		})},
		{"no cache", "--vault-addr=https://v:8200 --republish-cache-bytes=0", nil,
			defaults(func(o *serveOptions) { o.republishCache = 0 })},
		{"a cache in bytes", "--vault-addr=https://v:8200 --republish-cache-bytes=1000000", nil,
			defaults(func(o *serveOptions) { o.republishCache = 1000000 })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parse(strings.Fields(test.args), getenv(test.env), &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			got.getenv = nil
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(serveOptions{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestConfig verifies that flags reach the configuration of the provider.
func TestConfig(t *testing.T) {
	o, err := parse([]string{"--vault-addr=https://v:8200", "--republish-cache-bytes=1Mi",
		"--vault-allowed-auth-mounts=jwt", "--vault-inline-auth=jwt", "--vault-allowed-namespaces=team",
		"--version-key-file=" + filepath.Join(t.TempDir(), "key")}, getenv(nil), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.config(slog.Default(), io.Discard)
	if err != nil || c.RepublishCacheBytes != 1<<20 || c.Audience != "vault" {
		t.Errorf("%d bytes, audience %q, %v", c.RepublishCacheBytes, c.Audience, err)
	}
	if !slices.Equal(c.AllowedAuthMounts, []string{"jwt"}) || !slices.Equal(c.AllowedNamespaces, []string{"team"}) ||
		!slices.Equal(c.InlineAuth, []string{"jwt"}) {
		t.Errorf("auth mounts %q, inline %q, namespaces %q", c.AllowedAuthMounts, c.InlineAuth, c.AllowedNamespaces)
	}
}

func TestParseReportsAllProblems(t *testing.T) {
	_, err := parse([]string{
		"--endpoint=rel.sock", "--vault-addr=vault:8200", "--vault-allowed-addresses=x,https://ok",
		"--vault-auth-mount=/", "--vault-allowed-auth-mounts=jwt,a//b,j*", "--vault-inline-auth=other,j*",
		"--vault-allowed-namespaces=../c",
		"--vault-client-cert=c",
		"--mount-timeout=3m", "--version-key-file=", "--republish-cache-bytes=-1", "--health-addr=8080",
		"--metrics-addr=9090", "--pprof-addr=:6060", "--log-level=debug-8", "--log-format=xml", "--node-name=a b",
		"--audit-log=audit", "serve",
	}, getenv(nil), &bytes.Buffer{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range []string{
		`["serve"]`, `--endpoint: invalid value "rel.sock"`, `--vault-addr: "vault:8200"`, `--vault-allowed-addresses: "x"`,
		"--vault-auth-mount: must not be empty", `--vault-allowed-auth-mounts: "a//b"`,
		`--vault-inline-auth: invalid value "other": must be the path of`,
		`--vault-inline-auth: invalid value "j*": wildcards`,
		`--vault-allowed-namespaces: "../c"`, "--vault-client-cert: must be set together with --vault-client-key",
		"--mount-timeout: invalid value 3m0s", `--republish-cache-bytes: invalid value "-1"`,
		"--version-key-file: must not be empty", `--health-addr: invalid address "8080"`,
		`--metrics-addr: invalid address "9090"`, `--pprof-addr: invalid address ":6060"`,
		`--log-level: invalid value "debug-8"`, `--log-format: invalid value "xml"`, `--node-name: invalid value "a b"`,
		`--audit-log: invalid value "audit"`,
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\ndoes not have %q", err, text)
		}
	}
	if _, err := parse(nil, getenv(nil), &bytes.Buffer{}); err == nil ||
		!strings.Contains(err.Error(), "--vault-addr: is required, or VAULT_ADDR") {
		t.Errorf("got %v", err)
	}
	plain, err := parse([]string{"--vault-addr=http://v:8200", "--vault-allowed-addresses=https://a,http://b"},
		getenv(nil), &bytes.Buffer{})
	for _, text := range []string{`--vault-addr: "http://v:8200": plain HTTP`,
		`--vault-allowed-addresses: "http://b": plain HTTP`, "--vault-insecure-http"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, %v; want %q", plain, err, text)
		}
	}
	for _, size := range []string{"", "much", "2Ti", "64MB", "-1", "9999999999999999999999"} {
		_, err := parse([]string{"--vault-addr=https://v", "--republish-cache-bytes=" + size}, getenv(nil), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), "--republish-cache-bytes: ") {
			t.Errorf("%s bytes: %v", size, err)
		}
	}
	for _, address := range []string{":6060", "0.0.0.0:6060", "[::]:6060", "10.0.0.1:6060", "localhost:6060",
		"127.0.0.1", "6060", "127.0.0.1:http"} {
		_, err := parse([]string{"--vault-addr=https://v", "--pprof-addr=" + address}, getenv(nil), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), "--pprof-addr: ") || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("profiles at %s: %v", address, err)
		}
	}
	for _, both := range [][]string{{"--health-addr", "--metrics-addr"}, {"--metrics-addr", "--pprof-addr"},
		{"--health-addr", "--pprof-addr"}} {
		_, err := parse([]string{"--vault-addr=https://v", both[0] + "=127.0.0.1:1", both[1] + "=127.0.0.1:1"},
			getenv(nil), &bytes.Buffer{})
		if want := both[1] + `: "127.0.0.1:1" is also the address of ` + both[0]; err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	if _, err := parse([]string{"--vault-adr=x"}, getenv(nil), &bytes.Buffer{}); err == nil ||
		!strings.Contains(err.Error(), "vault-adr") {
		t.Errorf("got %v", err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for arg, text := range map[string]string{"--help": "--vault-allowed-addresses addresses",
		"--version": "secretmanager-provider v0.0.0-devel"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{arg}, getenv(nil), &out, &errs); code != 0 ||
			!strings.Contains(out.String(), text) || errs.Len() > 0 {
			t.Errorf("%s: code %d, %q, %q", arg, code, out.String(), errs.String())
		}
	}
}
