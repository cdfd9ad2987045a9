package provider

import (
	"errors"
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// loginFailure returns the failure of a login.
func (p *Provider) loginFailure(r *request, err error) *failure.Error {
	what := fmt.Sprintf("logging in to Vault at %s as role %s of auth/%s with service account %s (audience %s)",
		r.VaultAddress, display.Quote(r.Role), r.AuthMount, r.serviceAccount(), display.Quote(r.Audience))
	if r.VaultNamespace != "" {
		what += " in Vault namespace " + r.VaultNamespace
	}
	switch {
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		return failure.LoginDenied.New(what, vaultCause(err), fmt.Sprintf(
			"that the role exists and has service account %s, its namespace and audience %s bound to it: `vault read %s`",
			r.pod.serviceAccount, display.Quote(r.Audience), display.ShellWord("auth/"+r.AuthMount+"/role/"+r.Role)))
	case errors.Is(err, transit.ErrWrongIdentity):
		return failure.LoginIdentityMismatch.New(what, vaultCause(err), fmt.Sprintf(
			"that auth/%s is of type kubernetes or jwt: `vault auth list`", r.AuthMount))
	case errors.Is(err, transit.ErrNotFound):
		return failure.AuthMountNotFound.New(what, vaultCause(err),
			"vaultAuthMountPath and vaultNamespace in the class: `vault auth list` shows the auth mounts; and that "+
				r.VaultAddress+" is the address of Vault itself")
	}
	return p.vaultFailure(r, what, err)
}

// decryptFailure returns the failure of a whole batch.
func (p *Provider) decryptFailure(r *request, err error) *failure.Error {
	what := fmt.Sprintf("decrypting %s with %s at %s as role %s of auth/%s",
		r.describeSecret(), r.Key, r.VaultAddress, display.Quote(r.Role), r.AuthMount)
	var e *transit.Error
	switch {
	case errors.Is(err, transit.ErrDenied):
		return failure.DecryptDenied.New(what, vaultCause(err), decryptCheck(r))
	case errors.Is(err, transit.ErrInvalidToken):
		return failure.VaultTokenExpired.New(what, vaultCause(err),
			"token_ttl and token_num_uses of the role: the token expired right after the login")
	case errors.Is(err, transit.ErrNotFound):
		return failure.KeyNotFound.New(what, vaultCause(err),
			"transitKey and transitMount in the class: `vault list "+display.ShellWord(r.Key.Mount+"/keys")+"` shows the keys")
	case errors.As(err, &e) && e.Status == 400:
		return failure.DecryptFailed.New(what, vaultCause(err), keyCheck)
	}
	return p.vaultFailure(r, what, err)
}

func decryptCheck(r *request) string {
	return fmt.Sprintf("that a policy of the role gives \"update\" on %s/decrypt/%s", r.Key.Mount, r.Key.Name)
}

const keyCheck = "transitKey and scope in the class: scope none is for a key that is not derived, the others for " +
	"one that is"

// vaultFailure returns the failure when Vault returned no usable response. The code of each reason is Internal: after
// Unavailable, the pod could start without its files.
func (p *Provider) vaultFailure(r *request, what string, err error) *failure.Error {
	const reach = "that Vault is up and that its address, network policies and firewalls let the provider's pod " +
		"on this node reach it"
	cause := vaultCause(err)
	vault := "Vault at " + r.VaultAddress
	timeout := p.config.MountTimeout
	switch {
	case errors.Is(err, transit.ErrSealed):
		return failure.VaultSealed.New(what, fmt.Sprintf("%s is sealed and was not unsealed within %s: %s", vault,
			timeout, cause), "`vault status`; an operator has to unseal it")
	case errors.Is(err, transit.ErrTLS):
		return failure.VaultUntrusted.New(what, fmt.Sprintf("the connection to %s is not trusted: %s", vault, cause),
			"the operator's --vault-ca-cert (or VAULT_CAPATH), --vault-client-cert, --vault-client-key and "+
				"--vault-tls-server-name of the provider, what their files hold on this node, and Vault's certificate")
	case errors.Is(err, transit.ErrUnreachable), errors.Is(err, transit.ErrTimeout):
		return failure.VaultUnreachable.New(what,
			fmt.Sprintf("%s cannot be reached within %s: %s", vault, timeout, cause), reach)
	case errors.Is(err, transit.ErrBusy):
		return failure.VaultRateLimited.New(what, fmt.Sprintf("%s refused requests for %s: %s", vault, timeout, cause),
			"the rate-limit quotas of Vault: `vault list sys/quotas/rate-limit`")
	case errors.Is(err, transit.ErrNotVault):
		return failure.NotVault.New(what, cause,
			fmt.Sprintf("that %s is the address of Vault itself, and not of a proxy or login page", r.VaultAddress))
	}
	return failure.VaultError.New(what, cause, "Vault's log, and "+reach)
}

// timeoutFailure returns the failure of a mount whose deadline has passed.
func (p *Provider) timeoutFailure(r *request, step string) *failure.Error {
	return failure.MountTimeout.New(r.describe("mounting the volume of"),
		fmt.Sprintf("not finished within %s; the last step was %s", p.config.MountTimeout, step),
		"the load of the node, of the API server and of Vault; --mount-timeout of the provider")
}

// vaultCause returns the error of Vault, with the HTTP status and the number of attempts.
func vaultCause(err error) string {
	var e *transit.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	// Operation and address are in the message already.
	short := *e
	short.Doing, short.Address = "", ""
	return strings.TrimPrefix(short.Error(), " at : ")
}

// entryFailure returns why Vault did not decrypt an entry.
func (r *request) entryFailure(entry, from string, err error) *failure.Error {
	what := "entry " + display.Quote(entry)
	switch {
	case errors.Is(err, transit.ErrMismatch):
		location := fmt.Sprintf("with scope %s", r.Scope)
		if r.Scope != ciphertext.None && r.Scope != ciphertext.Cluster {
			location = fmt.Sprintf("as %s:%s", r.Scope, r.Scope.Describe(r.pod.namespace, r.Secret, entry))
		}
		check := "where the value was encrypted (label " + ciphertext.LabelTransitKey + " and annotation " +
			ciphertext.AnnotationScope +
			" of the Secret), against transitKey and scope in the class; a ciphertext cannot be copied: encrypt the value again"
		if from == fromKubelet {
			check += "; and that the pod's nodePublishSecretRef names the same Secret as secretName in the class"
		}
		return failure.CiphertextMismatch.New(what,
			fmt.Sprintf("cannot be decrypted %s with %s: it was encrypted for another "+
				"namespace, Secret or entry, or with another key or scope (%s)", location, r.Key, err), check)
	case errors.Is(err, transit.ErrTooOld):
		return failure.KeyVersionRetired.New(what, fmt.Sprintf("its key version has been retired (%s)", err),
			"min_decryption_version of the key, and that the Secret in the cluster has been rewrapped: `secretmanager status`")
	case errors.Is(err, transit.ErrTooNew):
		return failure.KeyVersionNotFound.New(what, fmt.Sprintf("the key has no such version (%s)", err),
			"whether Vault or the key was restored from an older backup, and transitKey in the class")
	case errors.Is(err, transit.ErrNotFound):
		return failure.KeyNotFound.New(what, err.Error(), "transitKey and transitMount in the class")
	}
	return failure.DecryptFailed.New(what, err.Error(), keyCheck)
}
