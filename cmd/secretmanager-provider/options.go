package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	defaultEndpoint   = "/etc/kubernetes/secrets-store-csi-providers/secretmanager.sock"
	defaultVersionKey = "/var/lib/secretmanager/version-key"
)

// Values of --audit-log that are not a path.
const (
	auditStdout = "stdout"
	auditOff    = "off"
)

// maxMountTimeout is under the kubelet's two minutes, and under the grace period in
// the manifest.
const maxMountTimeout = 110 * time.Second

// maxRepublishCache is beyond what any node has to spare.
var maxRepublishCache = resource.MustParse("1Ti")

// errDone is what --help and --version give: there is nothing more to do.
var errDone = errors.New("done")

// options are the flags, with the environment where there is no flag.
type options struct {
	endpoint       string
	vault          transit.Config
	allowed        []string
	namespaces     []string
	authMounts     []string
	vaultNamespace string
	authMount      string
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
	logLevel       slog.Level
	logFormat      string

	getenv func(string) string
}

// parse reads flags and environment. The error names all that is wrong.
func parse(args []string, getenv func(string) string, stdout io.Writer) (*options, error) {
	o := &options{vault: transit.FromEnvironment(getenv), getenv: getenv}
	fs := flag.NewFlagSet("secretmanager-provider", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // what is wrong is reported once, together
	var errs []error
	bad := func(name, format string, a ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", name, fmt.Sprintf(format, a...)))
	}

	fs.StringVar(&o.endpoint, "endpoint", defaultEndpoint, "`path` of the unix socket to serve the driver on")
	fs.StringVar(&o.vault.Address, "vault-addr", o.vault.Address, "Vault's `address` where a class names none; environment VAULT_ADDR")
	allowed := fs.String("vault-allowed-addresses", "", "further Vault `addresses` that a class may name, with commas between them")
	fs.StringVar(&o.vaultNamespace, "vault-namespace", getenv("VAULT_NAMESPACE"), "Vault `namespace` where a class names none; environment VAULT_NAMESPACE")
	fs.StringVar(&o.authMount, "vault-auth-mount", provider.DefaultAuthMount, "`path` of the auth mount where a class names none")
	authMounts := fs.String("vault-allowed-auth-mounts", "", "further `paths` of auth mounts that a class may name, with commas between them; of type kubernetes or jwt")
	namespaces := fs.String("vault-allowed-namespaces", "", "further Vault `namespaces` that a class may name, with commas between them")
	fs.StringVar(&o.vault.CACert, "vault-ca-cert", o.vault.CACert, "`file` of CA certificates for Vault; environment VAULT_CACERT")
	fs.StringVar(&o.vault.ClientCert, "vault-client-cert", o.vault.ClientCert, "`file` of a client certificate for Vault; environment VAULT_CLIENT_CERT")
	fs.StringVar(&o.vault.ClientKey, "vault-client-key", o.vault.ClientKey, "`file` of its key; environment VAULT_CLIENT_KEY")
	fs.StringVar(&o.vault.TLSServerName, "vault-tls-server-name", o.vault.TLSServerName, "`name` to expect in Vault's certificate; environment VAULT_TLS_SERVER_NAME")
	fs.StringVar(&o.audience, "audience", provider.DefaultAudience, "`audience` of the pod's token to log in with where a class names none; empty for the API server's")
	fs.BoolVar(&o.vault.InsecureHTTP, "vault-insecure-http", o.vault.InsecureHTTP, "accept http addresses of Vault outside the loopback interface, for development: tokens and plaintext cross the network unencrypted; environment "+transit.EnvInsecureHTTP)
	timeout := fs.String("mount-timeout", provider.DefaultMountTimeout.String(), "how long a mount may take, as a `duration` under the kubelet's two minutes")
	republishCache := fs.String("republish-cache-bytes", strconv.Itoa(provider.DefaultRepublishCacheBytes), "how many `bytes` the answers may take that are kept to be given again to the same pod, as a number or a quantity such as 64Mi; 0 keeps none")
	fs.StringVar(&o.versionKeyFile, "version-key-file", defaultVersionKey, "`file` of the key that object versions are made with; made if it is not there")
	fs.StringVar(&o.healthAddr, "health-addr", "", "`host:port` to serve /healthz and /readyz on; empty for not at all")
	fs.StringVar(&o.metricsAddr, "metrics-addr", "", "`host:port` to serve Prometheus' /metrics on, in plain HTTP; empty for not at all")
	fs.StringVar(&o.pprofAddr, "pprof-addr", "", "`IP:port` to serve Go's profiles on, of the loopback interface; empty for not at all")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that names the API server, outside of a cluster; its credentials are not used")
	fs.StringVar(&o.node, "node-name", getenv("NODE_NAME"), "`name` of the node, for the audit log and Vault's; environment NODE_NAME; empty to leave it out")
	fs.StringVar(&o.auditLog, "audit-log", auditStdout, "`where` the audit records go, a line of JSON for each mount: stdout, off, or the absolute path of a file to append to")
	level := fs.String("log-level", "info", "lowest `level` to log: debug, info, warn, error")
	fs.StringVar(&o.logFormat, "log-format", "text", "`format` of the log: text or json")
	showVersion := fs.Bool("version", false, "print the version and what it was built from, and end")

	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage(fs, stdout)
		return nil, errDone
	case err != nil:
		return nil, fmt.Errorf("%w; --help lists the flags", err)
	case *showVersion:
		fmt.Fprintln(stdout, version.Line("secretmanager-provider"))
		return nil, errDone
	}
	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("%q: there are no arguments beside flags", fs.Args()))
	}

	if !filepath.IsAbs(o.endpoint) {
		bad("endpoint", "%q is not an absolute path", o.endpoint)
	}
	if o.vault.Address == "" {
		bad("vault-addr", "is required, or VAULT_ADDR in the environment")
	} else if err := transit.CheckAddress(o.vault.Address); err != nil {
		bad("vault-addr", "%v", err)
	} else if err := transit.CheckTransport(o.vault.Address, o.vault.InsecureHTTP); err != nil {
		bad("vault-addr", "%v", err)
	}
	list := func(name, text string, check func(string) error) (values []string) {
		for value := range strings.SplitSeq(text, ",") {
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			if err := check(value); err != nil {
				bad(name, "%v", err)
			}
			values = append(values, value)
		}
		return values
	}
	checkPath := func(path string) error { return ciphertext.CheckPath(strings.Trim(path, "/")) }
	o.allowed = list("vault-allowed-addresses", *allowed, func(address string) error {
		if err := transit.CheckAddress(address); err != nil {
			return err
		}
		return transit.CheckTransport(address, o.vault.InsecureHTTP)
	})
	o.authMounts = list("vault-allowed-auth-mounts", *authMounts, checkPath)
	o.namespaces = list("vault-allowed-namespaces", *namespaces, checkPath)
	if strings.Trim(o.authMount, "/") == "" {
		bad("vault-auth-mount", "is empty")
	}
	if (o.vault.ClientCert == "") != (o.vault.ClientKey == "") {
		bad("vault-client-cert", "and --vault-client-key go together")
	}
	var err error
	if o.mountTimeout, err = time.ParseDuration(*timeout); err != nil || o.mountTimeout < time.Second || o.mountTimeout > maxMountTimeout {
		bad("mount-timeout", "%q is not a duration from 1s to 110s, such as 25s", *timeout)
	}
	if q, err := resource.ParseQuantity(*republishCache); err != nil || q.Sign() < 0 || q.Cmp(maxRepublishCache) > 0 {
		bad("republish-cache-bytes", "%q is not a number of bytes from 0 to %s, such as 67108864 or 64Mi", *republishCache, maxRepublishCache.String())
	} else {
		o.republishCache = q.Value()
	}
	if o.versionKeyFile == "" {
		bad("version-key-file", "is empty")
	}
	if o.node != "" && len(validation.IsDNS1123Subdomain(o.node)) > 0 {
		bad("node-name", "%q is not the name of a node", o.node)
	}
	if o.auditLog != auditStdout && o.auditLog != auditOff && !filepath.IsAbs(o.auditLog) {
		bad("audit-log", "%q is not stdout, off or an absolute path", o.auditLog)
	}
	listening := map[string]string{}
	for _, l := range []struct{ name, address string }{
		{"health-addr", o.healthAddr}, {"metrics-addr", o.metricsAddr}, {"pprof-addr", o.pprofAddr},
	} {
		if l.address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(l.address)
		if err != nil {
			bad(l.name, "%q is not of the form HOST:PORT or :PORT", l.address)
		}
		// Port 0 is another one each time.
		if other := listening[l.address]; other != "" && port != "0" {
			bad(l.name, "%q is the address of --%s: each has one of its own", l.address, other)
		}
		listening[l.address] = l.name
	}
	// A profile shows nothing of what is in memory, but costs time, and anybody
	// can ask. A name would be whatever the resolver makes of it.
	if at, err := netip.ParseAddrPort(o.pprofAddr); o.pprofAddr != "" && (err != nil || !at.Addr().IsLoopback()) {
		bad("pprof-addr", "%q is not an address of the loopback interface, such as 127.0.0.1:6060", o.pprofAddr)
	}
	// Only these: below debug, client-go logs what the API server answers.
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, *level) || o.logLevel.UnmarshalText([]byte(*level)) != nil {
		bad("log-level", "%q is not one of debug, info, warn, error", *level)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		bad("log-format", "%q is not one of text, json", o.logFormat)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("%w\n--help lists the flags", errors.Join(errs...))
	}
	return o, nil
}

// config reads the files that the options name.
func (o *options) config(log *slog.Logger, stdout io.Writer) (provider.Config, error) {
	key, err := provider.VersionKey(o.versionKeyFile)
	errs := []error{err}
	c := provider.Config{
		Vault: o.vault, AllowedAddresses: o.allowed,
		VaultNamespace: o.vaultNamespace, AllowedNamespaces: o.namespaces,
		AuthMount: o.authMount, AllowedAuthMounts: o.authMounts, Audience: o.audience, MountTimeout: o.mountTimeout,
		RepublishCacheBytes: o.republishCache,
		VersionKey:          key, Log: log, BuildVersion: version.Number(), Node: o.node,
	}
	switch o.auditLog {
	case auditStdout:
		c.Audit = stdout
	case auditOff:
	default:
		c.Audit, err = provider.AuditFile(o.auditLog)
		errs = append(errs, err)
	}
	server := provider.InCluster(o.getenv)
	if o.kubeconfig != "" {
		server, err = provider.FromKubeconfig(o.kubeconfig)
		errs = append(errs, err)
	}
	if server != nil {
		c.Kubernetes, err = provider.NewKubernetes(server)
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

func (o *options) logger(w io.Writer) *slog.Logger {
	handlerOptions := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, handlerOptions))
	}
	return slog.New(slog.NewTextHandler(w, handlerOptions))
}

func usage(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "secretmanager-provider decrypts ciphertext Secrets for the Secrets Store CSI driver.\n\nFlags:\n")
	fs.VisitAll(func(f *flag.Flag) {
		name, text := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  --%s %s\n        %s", f.Name, name, text)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(w, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(w)
	})
}
