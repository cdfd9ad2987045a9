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
	"github.com/secretmanager-io/secretmanager/transit"
)

// clocksApart is how far Vault's clock may be from ours. Vault itself allows a
// service-account token a minute or more; before that it is worth a word.
const clocksApart = 30 * time.Second

// vaultSide is what was found of Vault.
type vaultSide struct {
	config    transit.Config
	namespace string // where no class tells
	client    *transit.Client
	api       *api.Client // without token and namespace
	health    *api.HealthResponse
}

// checkVault looks for Vault where the one who asks says it is, and nowhere else.
func (w *run) checkVault(ctx context.Context) finding {
	v := &w.vault
	v.config, v.namespace = w.Vault, cmp.Or(w.VaultNamespace, w.provider.settings.VaultNamespace)
	v.config.RetryFor = -1 // a minute of patience would be one per check
	if v.config.Address == "" {
		f := unknownf("VAULT_ADDR is not set").withFix("export VAULT_ADDR=https://HOST:8200").
			withAdvice("or --vault-addr; no credentials are sent to an address that a class or the provider names, " +
				"since others may have written it")
		f.blocks = true
		return f
	}
	var err error
	if v.client, err = transit.NewClient(v.config); err == nil {
		v.api, err = w.VaultAPI(v.config)
	}
	if errors.Is(err, transit.ErrPlainHTTP) { // about what this program sends, and not about the installation
		f := unknownf("nothing is sent to Vault: %s", oneLine(err))
		f.blocks = true
		return f
	}
	if err != nil {
		return brokenf("%s", oneLine(err)).withAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT")
	}
	v.api.SetMaxRetries(0)
	v.health, err = v.api.Sys().HealthWithContext(ctx)
	address := v.config.Address
	switch {
	case err == nil && v.health.ServerTimeUTC == 0 && v.health.Version == "":
		return brokenf("what answers at %s is not Vault", address).withFix("vault status").
			withAdvice("check VAULT_ADDR, and that no proxy answers in its place")
	case err == nil:
		f := okf("%s at %s", v.health.Version, address)
		if transit.PlainHTTP(address) {
			f = f.withWarning("plain HTTP to " + address +
				": everyone on the network can read tokens and plaintext (--vault-insecure-http)")
		}
		return f
	case unanswered(err):
		return brokenf("%s cannot be reached: %s", address, vaultError(err)).withFix("vault status").
			withAdvice("check VAULT_ADDR and, for TLS, VAULT_CACERT; that Vault is up, and no firewall is between")
	}
	return brokenf("what answers at %s is not Vault: %s", address, vaultError(err)).withFix("vault status").
		withAdvice("check VAULT_ADDR, and that no proxy answers in its place")
}

// unanswered reports whether there was no answer at all.
func unanswered(err error) bool {
	return errors.As(err, new(*url.Error)) || errors.Is(err, context.DeadlineExceeded)
}

// vaultError is an error of Vault's own client in one line. A body that is not
// Vault's is not repeated.
func vaultError(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return oneLine(inner.Err)
	}
	refused := (*api.ResponseError)(nil)
	if !errors.As(err, &refused) {
		return "its answer is not one that Vault gives"
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
		return brokenf("Vault is not initialised").withFix("vault operator init", "vault operator unseal")
	case h.Sealed:
		return brokenf("Vault is sealed").withFix("vault operator unseal").
			withAdvice("it takes the keys of whoever runs Vault")
	}
	return okf("unsealed")
}

func (w *run) checkClock(context.Context) finding {
	if w.vault.health.ServerTimeUTC == 0 {
		return unknownf("Vault does not tell its time")
	}
	now := w.Now()
	// Vault tells whole seconds.
	apart := now.Sub(time.Unix(w.vault.health.ServerTimeUTC, 0)).Truncate(time.Second)
	if apart.Abs() <= clocksApart {
		return okf("less than %s from ours", clocksApart)
	}
	side := "behind"
	if apart < 0 {
		side = "ahead of"
	}
	return brokenf("Vault's clock is %s %s ours (%s): tokens look expired, or not valid yet", apart.Abs(), side,
		now.UTC().Format(time.RFC3339)).
		withFix("timedatectl status").withAdvice("on Vault's machine, here, and on the nodes: one of them is off")
}

var errNoToken = errors.New("no Vault token")

// asUser is the API client of the one who asks.
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

// session is the transit session of the one who asks.
func (w *run) session(namespace string) (*transit.Session, error) {
	if w.VaultToken == "" {
		return nil, errNoToken
	}
	return w.vault.client.Session(namespace, transit.StaticToken(w.VaultToken)), nil
}

// read reads a path as the one who asks; nil without an error is nothing there.
func (w *run) read(ctx context.Context, namespace, path string) (map[string]any, error) {
	client, err := w.asUser(namespace)
	if err != nil {
		return nil, err
	}
	answer, err := client.Logical().ReadWithContext(ctx, path)
	if err != nil || answer == nil {
		return nil, err
	}
	return answer.Data, nil
}

// unread is why a path could not be read, for people.
func unread(path string, err error) string {
	refused := (*api.ResponseError)(nil)
	switch {
	case errors.Is(err, errNoToken):
		return "there is no Vault token to read " + path + " with (vault login)"
	case errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden:
		return "your Vault token may not read " + path
	}
	return "reading " + path + ": " + vaultError(err)
}

// checkAuthMount asks for a login without a role, which everybody may: a mount that
// takes {role, jwt} says what it misses, and where there is none Vault denies.
func (w *run) checkAuthMount(ctx context.Context, namespace, mount string) finding {
	kind := ""
	if data, err := w.read(ctx, namespace, "sys/auth/"+mount); err == nil && data != nil {
		kind, _ = data["type"].(string)
		if kind != "kubernetes" && kind != "jwt" {
			return brokenf("auth/%s is of type %s, which does not log service accounts in", mount, kind).
				withAdvice("name one of type kubernetes or jwt: vaultAuthMountPath in the class, --vault-auth-mount " +
					"of the provider")
		}
	}
	unconfigured := func() finding {
		return brokenf("auth/%s has not been configured: it does not know how to check the cluster's tokens", mount).
			withFix(configureAuth(namespace, mount)).
			withAdvice("that is for a mount of type kubernetes; one of type jwt wants oidc_discovery_url " +
				"or jwt_validation_pubkeys")
	}
	if kind == "kubernetes" {
		// A login tells that only after it has found a role.
		if data, err := w.read(ctx, namespace, "auth/"+mount+"/config"); err == nil && data == nil {
			return unconfigured()
		}
	}
	_, err := w.vault.client.Login(ctx, transit.Login{Namespace: namespace, Mount: mount, JWT: noJWT})
	var e *transit.Error
	if !errors.As(err, &e) || e.Status == 0 {
		return unknownf("asking auth/%s: %s", mount, vaultWords(err))
	}
	switch {
	case kind == "" && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound):
		where := ""
		if namespace != "" {
			where = " in Vault namespace " + namespace
		}
		return brokenf("there is no auth/%s that logs service accounts in%s", mount, where).
			withFix(inNamespace(namespace, "vault", "auth", "enable", "-path="+mount, "kubernetes"),
				configureAuth(namespace, mount)).
			withAdvice("kubernetes_host is the API server as Vault reaches it, and a Vault outside of the cluster " +
				"wants kubernetes_ca_cert and token_reviewer_jwt too; vault auth list shows what there is")
	case strings.Contains(e.Error(), "could not load"):
		return unconfigured()
	case kind == "" && e.Status != http.StatusBadRequest:
		return unknownf("asking auth/%s: %s", mount, vaultWords(err))
	}
	if kind != "" {
		return okf("auth/%s, of type %s", mount, kind)
	}
	return okf("auth/%s", mount)
}

// configureAuth is the command that tells a mount where the API server is.
func configureAuth(namespace, mount string) string {
	return inNamespace(namespace, "vault", "write", "auth/"+mount+"/config",
		"kubernetes_host=https://kubernetes.default.svc")
}

// inNamespace is a command for a Vault namespace.
func inNamespace(namespace string, words ...string) string {
	if namespace == "" {
		return command(words...)
	}
	return "VAULT_NAMESPACE=" + display.ShellWord(namespace) + " " + command(words...)
}

func noJWT() (string, error) { return "", nil }
