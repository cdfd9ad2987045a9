package vaultsetup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/transit"
)

// auditHeadersPath has the names of the request headers that Vault writes to its audit
// devices. It exists only in the root namespace and requires sudo.
const auditHeadersPath = "sys/config/auditing/request-headers"

// CompareAuditHeaders reads which request headers Vault writes to its audit devices, and
// returns the changes that register those of [transit.AuditHeaders]. The client must use
// the root namespace. The error wraps [ErrDenied] if the token lacks the rights.
func CompareAuditHeaders(ctx context.Context, v *api.Client) ([]Change, error) {
	response, err := v.Logical().ReadWithContext(ctx, auditHeadersPath)
	if err != nil {
		return nil, explain("reading "+auditHeadersPath, err)
	}
	registered := map[string]any{} // by name in lower case
	if response != nil {
		headers, _ := response.Data["headers"].(map[string]any)
		for name, settings := range headers {
			registered[strings.ToLower(name)] = settings
		}
	}
	var changes []Change
	for _, name := range transit.AuditHeaders() {
		settings, found := registered[strings.ToLower(name)].(map[string]any)
		change := Change{Outcome: Unchanged, Kind: "audit header", Name: name}
		switch {
		case !found:
			change.Outcome = Created
		case !isFalse(settings["hmac"]):
			change.Outcome, change.Note = Changed, "it was written as a hash"
		}
		if change.Outcome != Unchanged {
			change.apply = func(ctx context.Context) error {
				return write(ctx, v, "registering", auditHeadersPath+"/"+name, []field{{"hmac", false}})
			}
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// isFalse reports whether a field of a response is false; a missing one is not.
func isFalse(v any) bool {
	b, ok := v.(bool)
	return ok && !b
}

// WriteAuditHeaderCommands writes the vault commands that register the headers.
func WriteAuditHeaderCommands(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `# Vault writes these request headers to its audit devices. Run this in the root
# namespace, with a token that has sudo on %s/*.
`, auditHeadersPath)
	for _, name := range transit.AuditHeaders() {
		fmt.Fprintf(out, "vault write %s/%s hmac=false\n", auditHeadersPath, name)
	}
	return out.Flush()
}

// WriteAuditHeaderTerraform writes the same as a resource of Terraform's vault provider.
func WriteAuditHeaderTerraform(w io.Writer) error {
	out := bufio.NewWriter(w)
	out.WriteString(`# Vault writes these request headers to its audit devices. The provider
# hashicorp/vault needs the root namespace and sudo.

resource "vault_audit_request_header" "secretmanager" {
  for_each = toset([
`)
	for _, name := range transit.AuditHeaders() {
		fmt.Fprintf(out, "    %s,\n", quote(name))
	}
	out.WriteString(`  ])

  name = each.value
  hmac = false
}
`)
	return out.Flush()
}
