package failure

// The command line.
var (
	PlainHTTP = defineFor(CommandLine, "PlainHTTP",
		"The address of Vault, or of a redirect, is plain HTTP outside of the loopback interface: everyone on the network "+
			"would see tokens and plaintext. The provider and the rotator do not start with it.",
		"Use https; for development set `--vault-insecure-http`.")
	InvalidSpec = defineFor(CommandLine, "InvalidSpec",
		"Names, scope, key or entries of the Secret are not valid.", "Each problem is named.")
	SecretExists = defineFor(CommandLine, "SecretExists",
		"A Secret of that name is not a ciphertext Secret, or has another key or scope.", "Use another name.")
	SecretChanged = defineFor(CommandLine, "SecretChanged",
		"The Secret was changed since it was read.", "Check the Secret, and try again.")
	NotConvertible = defineFor(CommandLine, "NotConvertible",
		"The type, the owner or the GitOps tool of the Secret needs its plaintext.", "Follow the message.")
	NotVerified = defineFor(CommandLine, "NotVerified",
		"The Secret was written, but some of its entries do not decrypt.", "Encrypt the named entries again.")
)
