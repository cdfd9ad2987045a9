package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/internal/display"
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
func (w *run) checkVault(ctx context.Context) finding {
	v := &w.vault
	v.config, v.namespace = w.Vault, cmp.Or(w.VaultNamespace, w.provider.settings.VaultNamespace)
	v.config.RetryFor = -1 // do not retry: each check would take a minute
	if v.config.Address == "" {
		f := unknownf("VAULT_ADDR is not set").withFix("export VAULT_ADDR=https://HOST:8200").
			withAdvice("or --vault-addr; no credentials are sent to an address in a class or in the provider, " +
				"as others may have written it")
		f.blocks = true
		return f
	}
	var err error
	if v.client, err = transit.NewClient(v.config); err == nil {
		one := v.config
		one.Address = v.client.Responding(ctx)
		v.api, err = w.VaultAPI(one)
	}
	if errors.Is(err, transit.ErrPlainHTTP) { // refused by this program, so nothing is known of the installation
		f := unknownf("nothing is sent to Vault: %s", oneLine(err))
		f.blocks = true
		return f
	}
	if err != nil {
		return brokenf("%s", oneLine(err)).withAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT")
	}
	v.api.SetMaxRetries(0)
	v.health, err = v.api.Sys().HealthWithContext(ctx)
	address := v.api.Address()
	switch {
	case err == nil && v.health.ServerTimeUTC == 0 && v.health.Version == "":
		return brokenf("the server at %s is not Vault", address).withFix("vault status").
			withAdvice("check VAULT_ADDR, and that no proxy responds instead")
	case err == nil:
		f := okf("%s at %s", v.health.Version, address)
		if transit.PlainHTTP(address) {
			f = f.withWarning("plain HTTP to " + address +
				": everyone on the network can read tokens and plaintext (--vault-insecure-http)")
		}
		return w.checkOtherAddresses(ctx, f)
	case noResponse(err):
		return brokenf("%s cannot be reached: %s", address, vaultError(err)).withFix("vault status").
			withAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT; that Vault runs, and that no firewall blocks it")
	}
	return brokenf("the server at %s is not Vault: %s", address, vaultError(err)).withFix("vault status").
		withAdvice("check VAULT_ADDR, and that no proxy responds instead")
}

// checkOtherAddresses adds a warning for each address of the cluster that does not respond, or is not trusted.
func (w *run) checkOtherAddresses(ctx context.Context, f finding) finding {
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
			f = f.withWarning(fmt.Sprintf("%s cannot be used: %s", address, vaultError(err)))
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
		return oneLine(inner.Err)
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

func (w *run) checkSeal(context.Context) finding {
	switch h := w.vault.health; {
	case !h.Initialized:
		return brokenf("Vault is not initialized").withFix("vault operator init", "vault operator unseal")
	case h.Sealed:
		return brokenf("Vault is sealed").withFix("vault operator unseal").
			withAdvice("the operator of Vault has the keys")
	}
	return okf("unsealed")
}

func (w *run) checkClock(context.Context) finding {
	if w.vault.health.ServerTimeUTC == 0 {
		return unknownf("Vault does not report its time")
	}
	now := w.Now()
	// Vault reports whole seconds.
	difference := now.Sub(time.Unix(w.vault.health.ServerTimeUTC, 0)).Truncate(time.Second)
	if difference.Abs() <= maxClockDifference {
		return okf("less than %s from ours", maxClockDifference)
	}
	side := "behind"
	if difference < 0 {
		side = "ahead of"
	}
	return brokenf("Vault's clock is %s %s ours (%s): tokens look expired, or not valid yet", difference.Abs(), side,
		now.UTC().Format(time.RFC3339)).
		withFix("timedatectl status").withAdvice("on Vault's machine, here and on the nodes, to find the clock that is wrong")
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
func (w *run) checkAuthMount(ctx context.Context, namespace, mount string) finding {
	kind := ""
	if data, err := w.read(ctx, namespace, "sys/auth/"+mount); err == nil && data != nil {
		kind, _ = data["type"].(string)
		if kind != "kubernetes" && kind != "jwt" {
			return brokenf("auth/%s is of type %s, which does not accept service account tokens", mount, kind).
				withAdvice("name one of type kubernetes or jwt: vaultAuthMountPath in the class, --vault-auth-mount " +
					"of the provider")
		}
	}
	unconfigured := func() finding {
		return brokenf("auth/%s has not been configured: it cannot validate the tokens of the cluster", mount).
			withFix(configureAuth(namespace, mount)).
			withAdvice("that is for a mount of type kubernetes; one of type jwt needs oidc_discovery_url " +
				"or jwt_validation_pubkeys")
	}
	if kind == "kubernetes" {
		// A login reports that only if the role exists.
		if data, err := w.read(ctx, namespace, "auth/"+mount+"/config"); err == nil && data == nil {
			return unconfigured()
		}
	}
	_, err := w.vault.client.Login(ctx, transit.Login{Namespace: namespace, Mount: mount, JWT: noJWT})
	var e *transit.Error
	if !errors.As(err, &e) || e.Status == 0 {
		return unknownf("trying auth/%s: %s", mount, vaultMessage(err))
	}
	switch {
	case kind == "" && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound):
		in := ""
		if namespace != "" {
			in = " in Vault namespace " + namespace
		}
		return brokenf("auth/%s does not exist%s, or does not accept service account tokens", mount, in).
			withFix(inNamespace(namespace, "vault", "auth", "enable", "-path="+mount, "kubernetes"),
				configureAuth(namespace, mount)).
			withAdvice("kubernetes_host is the API server as Vault reaches it, and a Vault outside of the cluster " +
				"also needs kubernetes_ca_cert and token_reviewer_jwt; vault auth list lists the mounts")
	case strings.Contains(e.Error(), "could not load"):
		return unconfigured()
	case kind == "" && e.Status != http.StatusBadRequest:
		return unknownf("trying auth/%s: %s", mount, vaultMessage(err))
	}
	if kind != "" {
		return okf("auth/%s, of type %s", mount, kind)
	}
	return okf("auth/%s", mount)
}

// configureAuth returns the command that sets the API server of a mount.
func configureAuth(namespace, mount string) string {
	return inNamespace(namespace, "vault", "write", "auth/"+mount+"/config",
		"kubernetes_host=https://kubernetes.default.svc")
}

// inNamespace returns a command for a Vault namespace.
func inNamespace(namespace string, words ...string) string {
	if namespace == "" {
		return command(words...)
	}
	return "VAULT_NAMESPACE=" + display.ShellWord(namespace) + " " + command(words...)
}

func noJWT() (string, error) { return "", nil }
