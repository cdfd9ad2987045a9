package failure

// What a rotation shares with the command line.
var (
	VaultForbidden = defineFor(Rotation|CommandLine, "VaultForbidden",
		"The policies of the Vault token do not allow the request.",
		"Add the rule in the message: `secretmanager vault-setup` prints the policies.")
	VaultTokenInvalid = defineFor(Rotation|CommandLine, "VaultTokenInvalid",
		"The Vault token has expired or was revoked.", "Log in again with `vault login`. The rotator logs in by itself.")
	APIServerForbidden = defineFor(Rotation|CommandLine, "APIServerForbidden",
		"RBAC does not allow the request, or the API server does not accept the credentials.",
		"Add the permission in the message: `kubectl auth can-i --list` shows the existing ones.")
	SecretConflict = defineFor(Rotation|CommandLine, "SecretConflict",
		"Other writers changed the Secret before each attempt to write it.", "Try again. The next run tries again.")
)

// A run.
var (
	Incomplete = defineFor(Rotation, "Incomplete",
		"Some entries are not at their target version, or a key failed.",
		"The report names each of them, with the reason.")
	AlreadyRunning = defineFor(Rotation, "AlreadyRunning",
		"Another run holds the Lease.", "Wait until that run has ended, or stop it.")
	NotInstalled = defineFor(Rotation, "NotInstalled",
		"A ConfigMap or the Lease of the rotator is missing, and a run creates neither.",
		"Install the chart or `manifests/rotator`, or set `--state-namespace`.")
	StateUnavailable = defineFor(Rotation, "StateUnavailable",
		"A ConfigMap or the Lease of the rotator cannot be read or updated.", "Add the permission in the message.")
	Stopped = defineFor(Rotation, "Stopped",
		"The run was stopped, or lost its Lease.", "Check the cause in the message. The next run continues.")
	InvalidOptions = defineFor(Rotation, "InvalidOptions",
		"The options are not valid, such as a negative `--retire-after`.", "Each problem is named.")
)

// The keys of a run.
var (
	VaultInconsistent = defineFor(Rotation, "VaultInconsistent",
		"Vault returned ciphertext of another key version, or that cannot be verified. The old ciphertext is unchanged. A "+
			"standby server that lags behind may be the cause, or a wrong server behind the load balancer.",
		"Check the servers behind the address of Vault, and run again.")
	KeyRestored = defineFor(Rotation, "KeyRestored",
		"The key is not the one that an earlier run saw: it was restored from a backup, or deleted and created again.",
		"See [Vault restored from an older backup](../rotation.md#disaster-recovery), then run once with `--acknowledge`.")
)

// The Secrets of a run.
var (
	SecretsNotListed = defineFor(Rotation, "SecretsNotListed",
		"The Secrets of a namespace, or of the cluster, cannot be listed. Meanwhile nothing is retired.",
		"Add the RoleBinding in [manifests/rotator](../../manifests/rotator/namespace) to the namespace, "+
			"or use `manifests/rotator/cluster`.")
	SecretMalformed = defineFor(Rotation, "SecretMalformed",
		"The labels and annotations of a ciphertext Secret do not name a key and a scope.",
		"Correct them, or encrypt the values again.")
	KeyNotSelected = defineFor(Rotation, "KeyNotSelected",
		"The label of a Secret names a key that `--transit-key` does not select, or not for the namespace of the Secret. It "+
			"is not rewrapped. If it decrypts with a selected key, that key is not retired.",
		"Select the key, or correct the label of the Secret.")
	CiphertextInUse = defineFor(Rotation, "CiphertextInUse",
		"A text in a Secret decrypts with a key version that is due to be retired.",
		"Rewrap it at its source, remove it, or let it become unreadable with `--release NAMESPACE/NAME`.")
	SecretRejected = defineFor(Rotation, "SecretRejected",
		"The API server rejects the Secret, although nobody changed it.",
		"Check the admission policy or the webhook in the message.")
	SecretImmutable = defineFor(Rotation, "SecretImmutable",
		"The Secret is immutable.", "Delete it, and create it again with `secretmanager encrypt`.")
	SecretManaged = defineFor(Rotation|CommandLine, "SecretManaged",
		"Somebody else [manages the Secret](labels.md#who-else-writes-a-secret), such as Argo CD or Helm, and would revert "+
			"the change.",
		"Change it [at its source](../rotation.md#manifests-in-git), or set `--include-managed`.")
	SecretModified = defineFor(Rotation, "SecretModified",
		"The Secret was written during the run.", "Run again.")
	SecretReverted = defineFor(Rotation, "SecretReverted",
		"An entry is older than what the rotator wrote: an old manifest was applied, or a backup restored.",
		"Rewrap it [at its source](../rotation.md#manifests-in-git).")
)
