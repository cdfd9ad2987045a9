package failure

import (
	"google.golang.org/grpc/codes"
)

var (
	all    []*Reason
	byName = map[string]*Reason{}
)

// All returns the reasons that a component reports, in the order of the catalog.
func All(c Component) (reasons []*Reason) {
	for _, r := range all {
		if r.components&c != 0 {
			reasons = append(reasons, r)
		}
	}
	return reasons
}

// IsFinal reports whether the kubelet takes a gRPC code of an error as the end of a mount. After other codes it keeps
// the directory of the volume, and the pod can start with an empty volume: see docs/failures.md.
func IsFinal(c codes.Code) bool {
	switch c {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.Internal:
		return true
	}
	return false
}

// define adds a reason that a mount reports.
func define(name string, code codes.Code, cause, check string) *Reason {
	if !IsFinal(code) {
		panic("failure: the code " + code.String() + " of " + name + " is not final")
	}
	return add(&Reason{name, code, Mount, cause, check})
}

// defineFor adds a reason that no mount reports.
func defineFor(components Component, name, cause, check string) *Reason {
	return add(&Reason{name, codes.OK, components, cause, check})
}

func add(r *Reason) *Reason {
	if byName[r.name] != nil {
		panic("failure: reason " + r.name + " is not unique")
	}
	all, byName[r.name] = append(all, r), r
	return r
}

// and adds components that report the reason, too.
func (r *Reason) and(components Component) *Reason {
	r.components |= components
	return r
}

// The request of the driver, with the parameters of the class.
var (
	InvalidParameters = define("InvalidParameters", codes.InvalidArgument,
		"The class, or the `volumeAttributes` of the pod, is not valid: see [parameters.md](parameters.md). "+
			"A `Forbidden` parameter names a Vault address, Vault namespace or auth mount that the operator does not allow.",
		"Each problem is named with its path, such as `objects[2].filePermission`.")
	InvalidRequest = define("InvalidRequest", codes.InvalidArgument,
		"The request is not a valid request of the driver.", "The driver must support the provider protocol `v1alpha1`.")
	RequestTooLarge = define("RequestTooLarge", codes.InvalidArgument,
		"The class, the `volumeAttributes` or the Secret in the request exceeds [its limit](parameters.md#limits).",
		"Make it smaller, as the message says, or use several classes and volumes.")
)

// The service account tokens of the pod.
var (
	TokenMissing = define("TokenMissing", codes.FailedPrecondition,
		"The kubelet sent no service account token for that audience.",
		"Add the line in the message to `tokenRequests` of the CSIDriver.")
	TokenInvalid = define("TokenInvalid", codes.Unauthenticated,
		"The token in the request is not a service account token of the API server.",
		"Only the driver may connect to the provider's socket.")
	TokenMismatch = define("TokenMismatch", codes.PermissionDenied,
		"The claims of the token do not match the pod that the kubelet names.",
		"Set `podInfoOnMount: true` in the CSIDriver. Only the driver may connect to the provider's socket.")
	TokenExpired = define("TokenExpired", codes.Unauthenticated,
		"The service account token has expired.", "Check the clock of the node.")
)

// The ciphertext Secret.
var (
	CiphertextMissing = define("CiphertextMissing", codes.FailedPrecondition,
		"The kubelet sent no Secret, and the provider cannot read it as the pod.",
		"Set `nodePublishSecretRef` in the volume of the pod; or add a `tokenRequests` line and a Role.")
	SecretNotFound = define("SecretNotFound", codes.NotFound,
		"The Secret does not exist in the namespace of the pod.", "Check `secretName` in the class.")
	SecretForbidden = define("SecretForbidden", codes.PermissionDenied,
		"The service account of the pod may not read the Secret.",
		"Set `nodePublishSecretRef`; or give the account the Role that the message describes.")
	APIServerTokenRejected = define("APIServerTokenRejected", codes.Unauthenticated,
		"The API server does not accept the token of the pod.",
		"Add the audience `''` to `tokenRequests`, and check the clocks.")
	APIServerUnavailable = define("APIServerUnavailable", codes.Internal,
		"The API server returned no usable response.",
		"Check its health and the network. A mount with `nodePublishSecretRef` needs neither.").and(Rotation | CommandLine)
	SecretTooLarge = define("SecretTooLarge", codes.FailedPrecondition,
		"The Secret has more entries than [its limit](parameters.md#limits).", "Split it into several Secrets.")
	SecretEmpty = define("SecretEmpty", codes.FailedPrecondition,
		"The Secret has no entries.", "Write them with `secretmanager encrypt`, or delete the Secret.").and(Rotation)
	EntryNotFound = define("EntryNotFound", codes.NotFound,
		"`objects` names an entry that the Secret does not have.",
		"Check the name of the entry, and of the Secret in `nodePublishSecretRef`.")
	InvalidEntryName = define("InvalidEntryName", codes.FailedPrecondition,
		"The name of an entry cannot be the name of a file.", "Rename the entry, or set `objects`.")
	InvalidCiphertext = define("InvalidCiphertext", codes.FailedPrecondition,
		"An entry is plaintext, empty, or damaged ciphertext.",
		"Encrypt the value with `secretmanager encrypt`, or apply the manifest again.").and(Rotation)
)

// Vault: login and decryption.
var (
	LoginDenied = define("LoginDenied", codes.PermissionDenied,
		"The Vault role does not exist, or is not bound to this service account, namespace or audience.",
		"`secretmanager vault-setup` prints a role that fits.")
	LoginIdentityMismatch = define("LoginIdentityMismatch", codes.PermissionDenied,
		"The auth method ignores the token of the pod, or the response is about another role or account.",
		"Use an auth mount of type `kubernetes` or `jwt`.")
	AuthMountNotFound = define("AuthMountNotFound", codes.NotFound,
		"Vault has no auth mount at that path.", "Check `vaultAuthMountPath`, `vaultNamespace` and the address.")
	DecryptDenied = define("DecryptDenied", codes.PermissionDenied,
		"The policies of the role do not allow decryption with this key.",
		"Add the rule in the message to a policy of the role.")
	InlineAuthDenied = define("InlineAuthDenied", codes.PermissionDenied,
		"A request that contains the login (`--vault-inline-auth`) is denied. Either the policies of the role do not allow "+
			"decryption with this key, or the login is refused; or the server is not OpenBao 2.4 or later.",
		"Check the policy and the role, as the message says. Vault ignores the login: use `--vault-inline-auth` only with "+
			"OpenBao.")
	VaultTokenExpired = define("VaultTokenExpired", codes.Unauthenticated,
		"The Vault token of the role expired right after the login.",
		"Check `token_ttl` and `token_num_uses` of the role.")
	KeyNotFound = define("KeyNotFound", codes.NotFound,
		"The transit key does not exist.",
		"Check the names of the key and its mount: `transitKey` and `transitMount` in a class.").and(Rotation | CommandLine)
	CiphertextMismatch = define("CiphertextMismatch", codes.FailedPrecondition,
		"The ciphertext is bound to another location: it was copied, or the class or Secret names another key or scope.",
		"Encrypt the value again for this location.").and(Rotation | CommandLine)
	KeyVersionRetired = define("KeyVersionRetired", codes.FailedPrecondition,
		"The ciphertext is older than the key's `min_decryption_version`.",
		"[Bring the version back](../rotation.md#disaster-recovery), or encrypt the value again.").and(Rotation | CommandLine)
	KeyVersionNotFound = define("KeyVersionNotFound", codes.FailedPrecondition,
		"The key does not have this version: it lost versions, or it is another key of that name.",
		"See [Vault restored from an older backup](../rotation.md#disaster-recovery).").and(Rotation | CommandLine)
	DecryptFailed = define("DecryptFailed", codes.FailedPrecondition,
		"Vault refused to decrypt. The usual cause is a scope that does not fit the key.",
		"Check `scope` in the class, or of the Secret: `none` is for a key that is not derived.").and(Rotation)
)

// Vault as a service.
var (
	VaultSealed = define("VaultSealed", codes.Internal,
		"Vault is sealed.", "Unseal it; `vault status` shows its state. The kubelet and the next run of "+
			"the rotator retry.").and(Rotation | CommandLine)
	VaultUnreachable = define("VaultUnreachable", codes.Internal,
		"Vault is down, slow, or cut off by the network.",
		"Check Vault and its address, network policies and firewalls. The kubelet tries again.").and(Rotation | CommandLine)
	VaultUntrusted = define("VaultUntrusted", codes.Internal,
		"A certificate is not valid: that of Vault, of its CA, or of the client.",
		"Check the TLS flags or variables, such as `VAULT_CACERT`, and the files that they name.").and(Rotation | CommandLine)
	VaultRateLimited = define("VaultRateLimited", codes.Internal,
		"A rate limit quota of Vault refused the requests.",
		"Raise the quota, or try again later. The kubelet tries again.").and(Rotation | CommandLine)
	NotVault = define("NotVault", codes.Internal,
		"The response is not from Vault's API.", "Check the address, and any proxy in front of Vault.").
		and(Rotation | CommandLine)
	VaultError = define("VaultError", codes.Internal,
		"Vault returned an error.", "Check the log of Vault.").and(Rotation | CommandLine)
)

// The files of the volume, and the provider.
var (
	InvalidContent = define("InvalidContent", codes.FailedPrecondition,
		"The plaintext does not have the field or the encoding that `objects` names, "+
			"or exceeds [its limit](parameters.md#limits).",
		"Check `field` and `encoding`, and the value with `secretmanager edit`.")
	VolumeTooLarge = define("VolumeTooLarge", codes.FailedPrecondition,
		"The files are larger than 4 MiB together.", "Use several classes and volumes.")
	NodeBusy = define("NodeBusy", codes.Internal,
		"Large mounts on this node, mostly of one namespace, already wait for "+
			"[their share of the provider's memory](parameters.md#limits).",
		"Use smaller Secrets and classes. The kubelet tries again.")
	MountTimeout = define("MountTimeout", codes.Internal,
		"The mount took longer than `--mount-timeout`.", "Check the load of the node, the API server and Vault.")
	Internal = define("Internal", codes.Internal,
		"A bug in the provider.", "Report it, with the stack trace in the log of the provider.")
)
