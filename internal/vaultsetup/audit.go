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

// auditHeadersPath is where Vault keeps the names of the request headers that it
// writes to its audit devices. It is in the root namespace alone, and needs sudo.
const auditHeadersPath = "sys/config/auditing/request-headers"

// CompareAuditHeaders reads which request headers Vault writes to its audit devices, and
// returns what registering those of [transit.AuditHeaders] changes. The client's
// namespace must be the root namespace. An error for want of rights wraps [ErrDenied].
func CompareAuditHeaders(ctx context.Context, v *api.Client) ([]Change, error) {
	answer, err := v.Logical().ReadWithContext(ctx, auditHeadersPath)
	if err != nil {
		return nil, explain("reading "+auditHeadersPath, err)
	}
	registered := map[string]any{} // by name in lower case
	if answer != nil {
		headers, _ := answer.Data["headers"].(map[string]any)
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
		case settings["hmac"] != false:
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

// WriteAuditHeaderCommands writes the vault commands that register the headers.
func WriteAuditHeaderCommands(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `# Vault writes these request headers to its audit devices. Run it in the root
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
# hashicorp/vault needs the root namespace and sudo for it.

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
