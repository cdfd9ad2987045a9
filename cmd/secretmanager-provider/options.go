package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/auditlog"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/provider"
)

const (
	defaultEndpoint   = "/var/run/secrets-store-csi-providers/secretmanager.sock"
	defaultVersionKey = "/var/lib/secretmanager/version-key"
)

// Values of --audit-log that are not a path.
const (
	auditStdout = "stdout"
	auditOff    = "off"
)

// maxMountTimeout is less than the kubelet's two minutes, and than the grace period in the manifest.
const maxMountTimeout = 110 * time.Second

// maxRepublishCache rejects a wrong unit: it is more than the memory of a node.
var maxRepublishCache = resource.MustParse("1Ti")

// serveOptions are the values of the flags, and of the environment variables that are their defaults.
type serveOptions struct {
	endpoint       string
	vault          options.Vault
	allowed        []string
	namespaces     []string
	authMounts     []string
	inlineAuth     []string
	audience       string
	mountTimeout   time.Duration
	republishCache int64
	versionKeyFile string
	healthAddr     string
	metricsAddr    string
	pprofAddr      string
	kubeconfig     string
	node           string
	auditLog       string
	log            options.Log

	getenv func(string) string
}

// parse parses the flags and the environment. The error names all problems.
func parse(args []string, getenv func(string) string, stdout io.Writer) (*serveOptions, error) {
	o := &serveOptions{getenv: getenv}
	f := pflag.NewFlagSet("secretmanager-provider", pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard) // the caller prints the error
	f.Usage = func() {
		fmt.Fprintf(stdout, "secretmanager-provider decrypts ciphertext Secrets for the Secrets Store CSI "+
			"driver.\n\nFlags:\n%s", f.FlagUsages())
	}
	cache := o.addFlags(f)
	return o, options.Parse(f, args, func() []error { return o.validate(*cache) })
}

// addFlags adds the flags. It returns the text of --republish-cache-bytes, which validate parses.
func (o *serveOptions) addFlags(f *pflag.FlagSet) (cache *string) {
	const scope = " of a class that names none"
	f.StringVar(&o.endpoint, "endpoint", defaultEndpoint, "`path` of the unix socket to serve the driver on")
	o.vault.AddFlags(f, o.getenv, scope)
	f.StringVar(&o.audience, "audience", provider.DefaultAudience,
		"`audience` of the pod's token to log in with, for a class that names none; empty for the API server's")
	f.StringSliceVar(&o.allowed, "vault-allowed-addresses", nil,
		"additional Vault `addresses` that a class may name, separated by commas")
	f.StringSliceVar(&o.authMounts, "vault-allowed-auth-mounts", nil,
		"additional `paths` of auth mounts that a class may name, separated by commas; of type kubernetes or jwt")
	f.StringSliceVar(&o.inlineAuth, "vault-inline-auth", nil,
		"`paths` of auth mounts, separated by commas, at which requests to OpenBao 2.4 or later contain the login, so "+
			"that no token is stored; of type kubernetes or jwt: no response shows another type (default: none)")
	f.StringSliceVar(&o.namespaces, "vault-allowed-namespaces", nil,
		"additional Vault `namespaces` that a class may name, separated by commas")
	f.DurationVar(&o.mountTimeout, "mount-timeout", provider.DefaultMountTimeout,
		"how long a mount may take, from 1s to 110s")
	cache = f.String("republish-cache-bytes", fmt.Sprint(provider.DefaultRepublishCacheBytes),
		"maximum size in `bytes` of the cached responses to repeated mounts of the same pod, as a number or a quantity "+
			"such as 64Mi; 0 caches none")
	f.StringVar(&o.versionKeyFile, "version-key-file", defaultVersionKey,
		"`file` with the key of the object versions; created if it does not exist")
	f.StringVar(&o.healthAddr, "health-addr", "", "`host:port` to serve /healthz and /readyz on (default: not served)")
	f.StringVar(&o.metricsAddr, "metrics-addr", "",
		"`host:port` to serve Prometheus metrics on, in plain HTTP at /metrics (default: not served)")
	f.StringVar(&o.pprofAddr, "pprof-addr",
		"", "`IP:port` of the loopback interface to serve Go's profiles on (default: not served)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "",
		"kubeconfig `file` with the API server, outside of a cluster; its credentials are not used")
	f.StringVar(&o.node, "node-name", o.getenv("NODE_NAME"),
		"`name` of the node, for the audit logs of the provider and of Vault (NODE_NAME)")
	f.StringVar(&o.auditLog, "audit-log", auditStdout,
		"`destination` of the audit records, one line of JSON for each mount: stdout, off, or the absolute path of a file "+
			"to append to")
	o.log.AddFlags(f)
	return cache
}

// validate returns all problems of the options.
func (o *serveOptions) validate(cache string) []error {
	errs := append(o.vault.Validate(), o.log.Validate()...)
	invalid := func(flag, format string, args ...any) { errs = append(errs, options.Invalid(flag, format, args...)) }
	if !filepath.IsAbs(o.endpoint) {
		invalid("endpoint", "invalid value %q: must be an absolute path", o.endpoint)
	}
	list := func(flag string, values *[]string, check func(string) error) {
		*values = slices.DeleteFunc(*values, func(value string) bool { return strings.TrimSpace(value) == "" })
		for i, value := range *values {
			value = strings.TrimSpace(value)
			if err := check(value); err != nil {
				invalid(flag, "%w", err)
			}
			(*values)[i] = value
		}
	}
	for _, paths := range [][]string{o.authMounts, o.inlineAuth, o.namespaces} {
		for i, path := range paths {
			paths[i] = options.TrimPath(path)
		}
	}
	list("vault-allowed-addresses", &o.allowed, o.vault.CheckAddress)
	list("vault-allowed-auth-mounts", &o.authMounts, ciphertext.CheckPath)
	list("vault-inline-auth", &o.inlineAuth, o.checkInlineAuth)
	list("vault-allowed-namespaces", &o.namespaces, ciphertext.CheckPath)
	if o.vault.AuthMount == "" {
		invalid("vault-auth-mount", "must not be empty")
	}
	if o.mountTimeout < time.Second || o.mountTimeout > maxMountTimeout {
		invalid("mount-timeout", "invalid value %s: must be from 1s to 110s", o.mountTimeout)
	}
	if q, err := resource.ParseQuantity(cache); err != nil || q.Sign() < 0 || q.Cmp(maxRepublishCache) > 0 {
		invalid("republish-cache-bytes",
			"invalid value %q: must be a number of bytes from 0 to %s, such as 67108864 or 64Mi", cache,
			maxRepublishCache.String())
	} else {
		o.republishCache = q.Value()
	}
	if o.versionKeyFile == "" {
		invalid("version-key-file", "must not be empty")
	}
	if o.node != "" && len(validation.IsDNS1123Subdomain(o.node)) > 0 {
		invalid("node-name", "invalid value %q: must be the name of a node", o.node)
	}
	if o.auditLog != auditStdout && o.auditLog != auditOff && !filepath.IsAbs(o.auditLog) {
		invalid("audit-log", "invalid value %q: must be stdout, off or an absolute path", o.auditLog)
	}
	profiles := options.Listener{Flag: "pprof-addr", Address: o.pprofAddr}
	errs = append(errs, options.ValidateListeners(options.Listener{Flag: "health-addr", Address: o.healthAddr},
		options.Listener{Flag: "metrics-addr", Address: o.metricsAddr}, profiles)...)
	// The port has no authentication. A profile contains no secrets, but takes CPU time.
	return append(errs, options.ValidateLoopback(profiles))
}

// checkInlineAuth returns an error for an auth mount that no class may name, and for a pattern.
func (o *serveOptions) checkInlineAuth(mount string) error {
	if mount != o.vault.AuthMount && !slices.Contains(o.authMounts, mount) {
		return fmt.Errorf("invalid value %q: must be the path of --vault-auth-mount or one of --vault-allowed-auth-mounts",
			mount)
	}
	if strings.ContainsAny(mount, "*+") {
		return fmt.Errorf("invalid value %q: wildcards are not supported", mount)
	}
	return nil
}

// config returns the configuration of the provider. It reads the files that the options name.
func (o *serveOptions) config(log *slog.Logger, stdout io.Writer) (provider.Config, error) {
	key, err := provider.VersionKey(o.versionKeyFile)
	errs := []error{err}
	c := provider.Config{
		Vault: o.vault.Config, AllowedAddresses: o.allowed,
		VaultNamespace: o.vault.Namespace, AllowedNamespaces: o.namespaces,
		AuthMount: o.vault.AuthMount, AllowedAuthMounts: o.authMounts, InlineAuth: o.inlineAuth,
		Audience: o.audience, MountTimeout: o.mountTimeout,
		RepublishCacheBytes: o.republishCache,
		VersionKey:          key, Log: log, BuildVersion: version.Number(), Node: o.node,
	}
	switch o.auditLog {
	case auditStdout:
		c.Audit = stdout
	case auditOff:
	default:
		c.Audit, err = auditlog.File(o.auditLog)
		errs = append(errs, err)
	}
	server := provider.InCluster(o.getenv)
	if o.kubeconfig != "" {
		server, err = provider.FromKubeconfig(o.kubeconfig)
		errs = append(errs, err)
	}
	if server != nil {
		c.SecretReader, err = provider.NewSecretReader(server)
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}
