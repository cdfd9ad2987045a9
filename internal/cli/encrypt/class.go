package encrypt

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
)

// printClass writes the SecretProviderClass of a ciphertext Secret, as one more document for
// kubectl, and in comments what a pod needs to mount it.
func (o *Options) printClass(secret *corev1.Secret, set ciphertext.Settings, account string) error {
	if secret.Namespace == "" {
		return cli.Usagef("--print-class needs the namespace of the pods: set -n")
	}
	var b strings.Builder
	if o.output != "" {
		b.WriteString("---\n")
	}
	line := func(indent, name, value string) {
		text, err := yaml.Marshal(value) // with quotes where they are needed
		if err != nil {
			text = fmt.Appendf(nil, "%q\n", value)
		}
		b.WriteString(indent + name + ": " + string(text))
	}
	b.WriteString("apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata:\n")
	line("  ", "name", secret.Name)
	line("  ", "namespace", secret.Namespace)
	b.WriteString("spec:\n  provider: secretmanager\n  parameters:\n")
	fmt.Fprintf(&b, "    # the Vault role of service account %s, as vault-setup names it\n", account)
	line("    ", "roleName", vaultsetup.ClassRoleName(
		vaultsetup.Account{Namespace: secret.Namespace, Name: account}, set.Key))
	line("    ", "secretName", secret.Name)
	line("    ", "transitKey", set.Key.Name)
	if set.Key.Mount != ciphertext.DefaultTransitMount {
		line("    ", "transitMount", set.Key.Mount)
	}
	if set.Scope != ciphertext.Strict {
		line("    ", "scope", string(set.Scope))
	}
	fmt.Fprintf(&b, `# In the pod, which gets every entry as a file below /secrets:
# spec:
#   serviceAccountName: %[2]s
#   containers:
#   - volumeMounts:
#     - {name: secrets, mountPath: /secrets, readOnly: true}
#   volumes:
#   - name: secrets
#     csi:
#       driver: secrets-store.csi.k8s.io
#       readOnly: true
#       volumeAttributes: {secretProviderClass: %[1]q}
#       nodePublishSecretRef: {name: %[1]q}
`, secret.Name, account)
	_, err := o.Out.Write([]byte(b.String()))
	return err
}
