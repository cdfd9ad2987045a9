package vaultsetup

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestAuditHeaders checks that the headers are registered once, with readable values, and
// that other headers stay.
func TestAuditHeaders(t *testing.T) {
	f := fixture.In(t, testenv.NewVault(t)) // not shared: the headers are those of the server
	c := client(f, f.Vault.RootToken)
	registered := func() map[string]any {
		t.Helper()
		data, err := f.Vault.Read(t.Context(), auditHeadersPath)
		if err != nil {
			t.Fatal(err)
		}
		return data["headers"].(map[string]any)
	}
	applyAll := func() map[string]Outcome {
		t.Helper()
		changes, err := CompareAuditHeaders(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		outcomes := map[string]Outcome{}
		for _, ch := range changes {
			if err := ch.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			outcomes[ch.Name] = ch.Outcome
		}
		return outcomes
	}
	for name, hmac := range map[string]bool{"X-Other": true, "X-SecretManager-Pod": true, "X-SecretManager-Node": false} {
		f.Write(auditHeadersPath+"/"+name, map[string]any{"hmac": hmac})
	}
	want := map[string]Outcome{}
	for _, name := range transit.AuditHeaders() {
		want[name] = Created
	}
	want["X-SecretManager-Pod"], want["X-SecretManager-Node"] = Changed, Unchanged
	if diff := cmp.Diff(want, applyAll()); diff != "" {
		t.Errorf("the first time, -want +got:\n%s", diff)
	}
	headers := registered()
	for _, name := range transit.AuditHeaders() {
		if diff := cmp.Diff(map[string]any{"hmac": false}, headers[strings.ToLower(name)]); diff != "" {
			t.Errorf("%s, -want +got:\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(map[string]any{"hmac": true}, headers["x-other"]); diff != "" {
		t.Errorf("another header, -want +got:\n%s", diff)
	}
	if got := changed(applyAll()); len(got) > 0 {
		t.Errorf("the second time: %v", got)
	}

	// A token that may administer policies and roles needs sudo too.
	for name, policy := range map[string]string{
		"no rights": `path "sys/mounts" { capabilities = ["read"] }`,
		"no sudo":   `path "sys/*" { capabilities = ["create", "read", "update", "delete", "list"] }`,
	} {
		if _, err := CompareAuditHeaders(t.Context(), client(f, f.Token(policy))); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuditHeadersTerraform(t *testing.T) {
	var text bytes.Buffer
	if err := WriteAuditHeaderTerraform(&text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(hclwrite.Format(text.Bytes())), text.String()); diff != "" {
		t.Errorf("terraform fmt changes the output, -want +got:\n%s", diff)
	}
	file, problems := hclsyntax.ParseConfig(text.Bytes(), "headers.tf", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	blocks := file.Body.(*hclsyntax.Body).Blocks
	if len(blocks) != 1 || blocks[0].Labels[0] != "vault_audit_request_header" {
		t.Fatalf("blocks %v", blocks)
	}
	names, problems := blocks[0].Body.Attributes["for_each"].Expr.Value(&hcl.EvalContext{
		Functions: map[string]function.Function{"toset": stdlib.MakeToFunc(cty.Set(cty.String))},
	})
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	if names.LengthInt() != len(transit.AuditHeaders()) {
		t.Errorf("%d headers", names.LengthInt())
	}
	for _, name := range transit.AuditHeaders() {
		if names.HasElement(cty.StringVal(name)).False() {
			t.Errorf("%s is missing", name)
		}
	}
}
