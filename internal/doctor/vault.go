package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
	"github.com/secretmanager-io/secretmanager/transit"
)

// maxClockDifference is the largest difference to Vault's clock that is ok. Vault allows a minute or
// more in service account tokens.
const maxClockDifference = 30 * time.Second

// vaultInfo is what the checks found of Vault.
type vaultInfo struct {
	config    transit.Config
	namespace string // for checks without a class
	client    *transit.Client
	api       *api.Client // without token and namespace
	health    *api.HealthResponse
}

// checkVault checks the Vault that the user configured, and no other.
func (w *run) checkVault(ctx context.Context) result.Finding {
	v := &w.vault
	v.config, v.namespace = w.Vault, cmp.Or(w.VaultNamespace, w.provider.settings.VaultNamespace)
	v.config.RetryFor = -1 // do not retry: each check would take a minute
	if v.config.Address == "" {
		f := result.Unknownf("VAULT_ADDR is not set").
			WithAdvice("or --vault-addr; no credentials are sent to an address in a class or in the provider, " +
				"as others may have written it")
		if theirs := vaultaddr.Split(w.provider.settings.VaultAddress); len(theirs) > 0 {
			f = f.WithFix(result.Command("export", "VAULT_ADDR="+theirs[0]))
		}
		f.Blocks = true
		return f
	}
	var err error
	if v.client, err = transit.NewClient(v.config); err == nil {
		one := v.config
		one.Address = v.client.Responding(ctx)
		v.api, err = w.VaultAPI(one)
	}
	if errors.Is(err, transit.ErrPlainHTTP) { // refused by this program, so nothing is known of the installation
		f := result.Unknownf("nothing is sent to Vault: %s", result.OneLine(err))
		f.Blocks = true
		return f
	}
	if err != nil {
		return result.Brokenf("%s", result.OneLine(err)).WithAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT")
	}
	v.api.SetMaxRetries(0)
	v.health, err = v.api.Sys().HealthWithContext(ctx)
	address := v.api.Address()
	switch {
	case err == nil && v.health.ServerTimeUTC == 0 && v.health.Version == "":
		return result.Brokenf("the server at %s is not Vault", address).WithInspect("vault status").
			WithAdvice("check VAULT_ADDR, and that no proxy responds instead")
	case err == nil:
		f := result.OKf("%s at %s", v.health.Version, address)
		if transit.PlainHTTP(address) {
			f = f.WithWarning("plain HTTP to " + address +
				": everyone on the network can read tokens and plaintext (--vault-insecure-http)")
		}
		return w.compareAddresses(w.checkOtherAddresses(ctx, f))
	case noResponse(err):
		return result.Brokenf("%s cannot be reached: %s", address, vaultError(err)).WithInspect("vault status").
			WithAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT; that Vault runs, and that no firewall blocks it")
	}
	return result.Brokenf("the server at %s is not Vault: %s", address, vaultError(err)).WithInspect("vault status").
		WithAdvice("check VAULT_ADDR, and that no proxy responds instead")
}

// compareAddresses adds a warning if the provider uses another address than the user. It can be the same Vault.
func (w *run) compareAddresses(f result.Finding) result.Finding {
	used, theirs := vaultaddr.NormalizeList(w.vault.config.Address),
		vaultaddr.NormalizeList(w.provider.settings.VaultAddress)
	// One address in common is enough: it is the same cluster.
	if theirs == "" || slices.ContainsFunc(vaultaddr.Split(used), func(address string) bool {
		return slices.Contains(vaultaddr.Split(theirs), address)
	}) {
		return f
	}
	return f.WithWarning(fmt.Sprintf("pods use the Vault at %s, and the checks below use the one at %s: if they are "+
		"not the "+
		"same, export VAULT_ADDR=%s", theirs, used, vaultaddr.Split(theirs)[0]))
}

// checkOtherAddresses adds a warning for each address of the cluster that does not respond, or is not trusted.
func (w *run) checkOtherAddresses(ctx context.Context, f result.Finding) result.Finding {
	for _, address := range vaultaddr.Split(w.vault.config.Address) {
		if address == w.vault.api.Address() {
			continue
		}
		one := w.vault.config
		one.Address = address
		client, err := w.VaultAPI(one)
		if err == nil {
			client.SetMaxRetries(0)
			_, err = client.Sys().HealthWithContext(ctx)
		}
		if err != nil {
			f = f.WithWarning(fmt.Sprintf("%s cannot be used: %s", address, vaultError(err)))
		}
	}
	return f
}

// noResponse reports whether a request got no response.
func noResponse(err error) bool {
	return errors.As(err, new(*url.Error)) || errors.Is(err, context.DeadlineExceeded)
}

// vaultError returns the message of an error of Vault's client on one line. It leaves out a body that
// is not Vault's.
func vaultError(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no response in time"
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return result.OneLine(inner.Err)
	}
	refused := (*api.ResponseError)(nil)
	if !errors.As(err, &refused) {
		return "unexpected response, not from Vault's API"
	}
	if refused.RawError {
		return fmt.Sprintf("HTTP %d", refused.StatusCode)
	}
	return fmt.Sprintf("HTTP %d: %s", refused.StatusCode,
		strings.Join(strings.Fields(strings.Join(refused.Errors, "; ")), " "))
}

func (w *run) checkSeal(context.Context) result.Finding {
	switch h := w.vault.health; {
	case !h.Initialized:
		return result.Brokenf("Vault is not initialized").WithInspect("vault status").
			WithAdvice("a new Vault: vault operator init; if it had data before, its storage is not there, and a new one " +
				"would replace it")
	case h.Sealed:
		return result.Brokenf("Vault is sealed").WithFix("vault operator unseal").
			WithAdvice("the operator of Vault has the keys")
	}
	return result.OKf("unsealed")
}

func (w *run) checkClock(context.Context) result.Finding {
	if w.vault.health.ServerTimeUTC == 0 {
		return result.Unknownf("Vault does not report its time")
	}
	now := w.Now()
	// Vault reports whole seconds.
	difference := now.Sub(time.Unix(w.vault.health.ServerTimeUTC, 0)).Truncate(time.Second)
	if difference.Abs() <= maxClockDifference {
		return result.OKf("less than %s from ours", maxClockDifference)
	}
	side := "behind"
	if difference < 0 {
		side = "ahead of"
	}
	return result.Brokenf("Vault's clock is %s %s ours (%s): tokens look expired, or not valid yet", difference.Abs(),
		side, now.UTC().Format(time.RFC3339)).
		WithInspect("timedatectl status").WithAdvice("on Vault's machine, here and on the nodes, to find the clock that " +
		"is wrong")
}

var errNoToken = errors.New("no Vault token")

// asUser returns an API client with the user's token.
func (w *run) asUser(namespace string) (*api.Client, error) {
	if w.VaultToken == "" {
		if w.VaultTokenError != nil {
			return nil, fmt.Errorf("%w: %w", errNoToken, w.VaultTokenError)
		}
		return nil, errNoToken
	}
	client, err := w.vault.api.Clone()
	if err != nil {
		return nil, err
	}
	client.SetToken(w.VaultToken)
	if namespace != "" {
		client.SetNamespace(namespace)
	}
	return client, nil
}

// session returns a transit session with the user's token.
func (w *run) session(namespace string) (*transit.Session, error) {
	if w.VaultToken == "" {
		return nil, errNoToken
	}
	return w.vault.client.Session(namespace, transit.StaticToken(w.VaultToken)), nil
}

// read reads a path with the user's token. It returns nil without an error if nothing exists there.
func (w *run) read(ctx context.Context, namespace, path string) (map[string]any, error) {
	client, err := w.asUser(namespace)
	if err != nil {
		return nil, err
	}
	response, err := client.Logical().ReadWithContext(ctx, path)
	if err != nil || response == nil {
		return nil, err
	}
	return response.Data, nil
}

// readError returns the message for a path that could not be read.
func readError(path string, err error) string {
	refused := (*api.ResponseError)(nil)
	switch {
	case errors.Is(err, errNoToken):
		return "no Vault token to read " + path + " (log in with: vault login)"
	case errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden:
		return "your Vault token may not read " + path
	}
	return "reading " + path + ": " + vaultError(err)
}

// checkAuthMount tries a login without a role, which takes no rights: a mount that takes {role, jwt}
// reports that they are missing, and Vault denies the request if no mount exists.
func (w *run) checkAuthMount(ctx context.Context, namespace, mount string) result.Finding {
	kind := ""
	if data, err := w.read(ctx, namespace, "sys/auth/"+mount); err == nil && data != nil {
		kind, _ = data["type"].(string)
		if kind != "kubernetes" && kind != "jwt" {
			return result.Brokenf("auth/%s is of type %s, which does not accept service account tokens", mount, kind).
				WithAdvice("name one of type kubernetes or jwt: vaultAuthMountPath in the class, --vault-auth-mount " +
					"of the provider")
		}
	}
	unconfigured := func() result.Finding {
		return result.Brokenf("auth/%s has not been configured: it cannot validate the tokens of the cluster", mount).
			WithAdvice("one of type jwt needs oidc_discovery_url or jwt_validation_pubkeys")
	}
	if kind == "kubernetes" {
		// A login reports that only if the role exists.
		if data, err := w.read(ctx, namespace, "auth/"+mount+"/config"); err == nil && data == nil {
			return w.configureAuth(unconfigured(), namespace, mount)
		}
	}
	_, err := w.vault.client.Login(ctx, transit.Login{Namespace: namespace, Mount: mount, JWT: noJWT})
	var e *transit.Error
	if !errors.As(err, &e) || e.Status == 0 {
		return result.Unknownf("trying auth/%s: %s", mount, result.VaultMessage(err))
	}
	switch {
	case kind == "" && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound):
		in := ""
		if namespace != "" {
			in = " in Vault namespace " + namespace
		}
		f := result.Brokenf("auth/%s does not exist%s, or does not accept service account tokens", mount, in).
			WithInspect(result.InNamespace(namespace, "vault", "auth", "list"))
		return w.configureAuth(f, namespace, mount,
			result.InNamespace(namespace, "vault", "auth", "enable", "-path="+mount, "kubernetes"))
	case strings.Contains(e.Error(), "could not load"):
		return w.configureAuth(unconfigured(), namespace, mount)
	case kind == "" && e.Status != http.StatusBadRequest:
		return result.Unknownf("trying auth/%s: %s", mount, result.VaultMessage(err))
	}
	if kind != "" {
		return result.OKf("auth/%s, of type %s", mount, kind)
	}
	return result.OKf("auth/%s", mount)
}

// configureAuth adds the commands that set the API server of a mount of type kubernetes, after those before.
func (w *run) configureAuth(f result.Finding, namespace, mount string, before ...string) result.Finding {
	inside := append(before, result.InNamespace(namespace, "vault", "write", "auth/"+mount+"/config",
		"kubernetes_host=https://kubernetes.default.svc"))
	const outside = "a Vault outside of the cluster is configured as in docs/vault-outside.md"
	if u, err := url.Parse(vaultaddr.Split(w.provider.settings.VaultAddress + ",")[0]); err == nil &&
		slices.Contains(strings.Split(u.Hostname(), "."), "svc") {
		return f.WithFix(inside...)
	}
	// Only a person knows where Vault runs.
	return f.WithChoice("Vault runs in this cluster, and auth/"+mount+" is to be of type kubernetes", inside...).
		WithAdvice(outside)
}

func noJWT() (string, error) { return "", nil }
