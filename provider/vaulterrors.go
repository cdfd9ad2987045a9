package provider

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// loginFailure makes the failure of a login.
func (p *Provider) loginFailure(r *request, err error) *failure {
	what := fmt.Sprintf("logging in to Vault at %s as role %s of auth/%s with service account %s (audience %s)",
		r.vaultAddress, quote(r.role), r.authMount, r.serviceAccount(), quote(r.audience))
	if r.vaultNamespace != "" {
		what += " in Vault namespace " + r.vaultNamespace
	}
	switch {
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		return fail(codes.PermissionDenied, what, words(err), fmt.Sprintf(
			"that the role exists and has service account %s, its namespace and audience %s bound to it: `vault read %s`",
			r.pod.serviceAccount, quote(r.audience), display.ShellWord("auth/"+r.authMount+"/role/"+r.role)))
	case errors.Is(err, transit.ErrWrongIdentity):
		return fail(codes.PermissionDenied, what, words(err), fmt.Sprintf(
			"that auth/%s is of type kubernetes or jwt: `vault auth list`", r.authMount))
	case errors.Is(err, transit.ErrNotFound):
		return fail(codes.NotFound, what, words(err),
			"vaultAuthMountPath and vaultNamespace in the class: `vault auth list` shows what there is; and that "+r.vaultAddress+" is the address of Vault itself")
	}
	return p.vaultFailure(r, what, err)
}

// decryptFailure makes the failure of a batch as a whole.
func (p *Provider) decryptFailure(r *request, err error) *failure {
	what := fmt.Sprintf("decrypting %s with %s at %s as role %s of auth/%s", r.place(), r.key, r.vaultAddress, quote(r.role), r.authMount)
	var e *transit.Error
	switch {
	case errors.Is(err, transit.ErrDenied):
		return fail(codes.PermissionDenied, what, words(err), fmt.Sprintf(
			"that a policy of the role gives \"update\" on %s/decrypt/%s", r.key.Mount, r.key.Name))
	case errors.Is(err, transit.ErrInvalidToken):
		return fail(codes.Unauthenticated, what, words(err), "token_ttl and token_num_uses of the role: the token ended right after the login")
	case errors.Is(err, transit.ErrNotFound):
		return fail(codes.NotFound, what, words(err),
			"transitKey and transitMount in the class: `vault list "+display.ShellWord(r.key.Mount+"/keys")+"` shows what there is")
	case errors.As(err, &e) && e.Status == 400:
		return fail(codes.FailedPrecondition, what, words(err), keyCheck)
	}
	return p.vaultFailure(r, what, err)
}

const keyCheck = "transitKey and scope in the class: scope none is for a key that is not derived, the others for one that is"

// vaultFailure makes the failure of a Vault that gave no usable answer. It is
// Internal whatever the reason: Unavailable would have the pod start without
// its files.
func (p *Provider) vaultFailure(r *request, what string, err error) *failure {
	within := fmt.Sprintf(" within %s", p.config.MountTimeout)
	const reach = "that Vault is up and that its address, network policies and firewalls let the provider's pod on this node reach it"
	why := words(err)
	switch {
	case errors.Is(err, transit.ErrSealed):
		return fail(codes.Internal, what, fmt.Sprintf("Vault at %s is sealed and was not unsealed%s: %s", r.vaultAddress, within, why),
			"`vault status`; an operator has to unseal it")
	case errors.Is(err, transit.ErrTLS):
		return fail(codes.Internal, what, fmt.Sprintf("the connection to Vault at %s is not trusted: %s", r.vaultAddress, why),
			"the operator's --vault-ca-cert (or VAULT_CAPATH), --vault-client-cert, --vault-client-key and --vault-tls-server-name of the provider, what their files hold on this node, and Vault's certificate")
	case errors.Is(err, transit.ErrUnreachable), errors.Is(err, transit.ErrTimeout):
		return fail(codes.Internal, what, fmt.Sprintf("Vault at %s cannot be reached%s: %s", r.vaultAddress, within, why), reach)
	case errors.Is(err, transit.ErrBusy):
		return fail(codes.Internal, what, fmt.Sprintf("Vault at %s refused requests for all of%s: %s", r.vaultAddress, strings.TrimPrefix(within, " within"), why),
			"the rate-limit quotas of Vault: `vault list sys/quotas/rate-limit`")
	case errors.Is(err, transit.ErrNotVault):
		return fail(codes.Internal, what, why, fmt.Sprintf("that %s is the address of Vault itself and no proxy or login page answers in its place", r.vaultAddress))
	}
	return fail(codes.Internal, what, why, "Vault's log, and "+reach)
}

// late is the failure of a mount whose time is over.
func (p *Provider) late(r *request, doing string) *failure {
	return fail(codes.Internal, r.of("mounting the volume of"), fmt.Sprintf("it was not done within %s; the last step was %s", p.config.MountTimeout, doing),
		"the load of the node, of the API server and of Vault; --mount-timeout of the provider")
}

// words are Vault's, with the HTTP status and the number of tries.
func words(err error) string {
	var e *transit.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	// Doing and address are in the message already.
	short := *e
	short.Doing, short.Address = "", ""
	return strings.TrimPrefix(short.Error(), " at : ")
}

// itemProblem says why one entry did not open, and what to check.
func (r *request) itemProblem(entry, from string, err error) (problem, check string) {
	open := fmt.Sprintf("entry %s does not open", quote(entry))
	switch {
	case errors.Is(err, transit.ErrMismatch):
		place := r.scope.Place(r.pod.namespace, r.secret, entry)
		if r.scope != ciphertext.None && r.scope != ciphertext.Cluster {
			open += fmt.Sprintf(" as %s:%s", r.scope, place)
		} else {
			open += fmt.Sprintf(" with scope %s", r.scope)
		}
		check = "where the ciphertext was made (label " + ciphertext.LabelTransitKey + " and annotation " + ciphertext.AnnotationScope +
			" of the Secret), against transitKey and scope in the class; a ciphertext cannot be copied, encrypt the value again in its place"
		if from == fromKubelet {
			check += "; and that the pod's nodePublishSecretRef names the same Secret as secretName in the class"
		}
		return fmt.Sprintf("%s with %s: it was encrypted for another namespace, Secret or entry, or with another key or scope (%s)", open, r.key, err), check
	case errors.Is(err, transit.ErrTooOld):
		return fmt.Sprintf("%s: its key version has been retired (%s)", open, err),
			"min_decryption_version of the key, and that the Secret in the cluster has been rewrapped: `secretmanager status`"
	case errors.Is(err, transit.ErrTooNew):
		return fmt.Sprintf("%s: the key has no such version (%s)", open, err),
			"whether Vault or the key was restored from an older backup, and transitKey in the class"
	case errors.Is(err, transit.ErrNotFound):
		return fmt.Sprintf("%s: %s", open, err), "transitKey and transitMount in the class"
	}
	return fmt.Sprintf("%s: %s", open, err), keyCheck
}
